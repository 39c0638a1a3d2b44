//! Errors of the shim.

use tch::{Device, Kind};

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong in or around libtorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch threw an exception, or refused a tensor.
    #[error("{what}: {message}")]
    Torch {
        /// The operation asked for.
        what: &'static str,
        /// libtorch's own words, without its backtrace unless `TORCH_SHOW_CPP_STACKTRACES` is 1.
        message: String,
    },
    /// tch refused a tensor.
    #[error("{0}")]
    Tch(#[from] tch::TchError),
    /// Lists that go together differ in length.
    #[error("{what}: {name} has {got} tensors, expected {expected}")]
    Length {
        /// The operation asked for.
        what: &'static str,
        /// The list at fault.
        name: &'static str,
        /// Length of the first list.
        expected: usize,
        /// Length of the list at fault.
        got: usize,
    },
    /// The device is neither a CPU nor a CUDA device.
    #[error("{what} works on cpu and cuda devices (got {device:?})")]
    Device {
        /// The operation asked for.
        what: &'static str,
        /// The device asked for.
        device: Device,
    },
    /// A data type that autocast does not compute in.
    #[error("autocast computes in half or bfloat16 (got {0:?})")]
    AutocastKind(Kind),
    /// A variable of a launcher is not set beside others that are.
    #[error("{name} is not set, but {beside} is: {advice}")]
    LaunchMissing {
        /// The variable.
        name: &'static str,
        /// One that is set.
        beside: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// A variable of a launcher makes no sense.
    #[error("{name}: expected {expected} (got {got:?})")]
    LaunchValue {
        /// The variable.
        name: &'static str,
        /// Its value.
        got: String,
        /// What would make sense.
        expected: String,
    },
    /// Something between processes failed: one of them is gone, late, or does something else.
    #[error(transparent)]
    Group(Box<GroupFailure>),
    /// The processes do not train the same network.
    #[error("process {rank} has {got} where process 0 has {expected}: do all run the same config?")]
    Parameters {
        /// The process that differs from process 0.
        rank: usize,
        /// Its first parameter that differs: name, shape, data type.
        got: String,
        /// That of process 0.
        expected: String,
    },
    /// Parameters that no gradient reached, so that the others wait for it.
    #[error(
        "the loss does not depend on {names}: leave them out of the parameters that are averaged, \
         or have unused ones searched for"
    )]
    UnusedParameters {
        /// Their names.
        names: String,
    },
    /// The group has no way for tensors of this device.
    #[error("{what}: the group was joined for other devices than {device:?}")]
    GroupDevice {
        /// The operation.
        what: &'static str,
        /// The tensor's device.
        device: Device,
    },
    /// NCCL does not start.
    #[error("nccl does not start on cuda device {index}: {message}")]
    Nccl {
        /// Index of the device.
        index: usize,
        /// What libtorch says.
        message: String,
    },
    /// The build has no NCCL.
    #[error(
        "this build has no nccl, which gpus need to work together: run `cargo xtask setup`, or put \
         nccl's and cuda's headers beside libtorch, and build again"
    )]
    NcclNotBuilt,
    /// The system starts no thread.
    #[error("cannot start the {what} thread")]
    Thread {
        /// What it is for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The system's account of memory could not be read.
    #[error("cannot read {path}")]
    System {
        /// The file of /proc.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The system's account of memory lacks a line.
    #[error("{path} has no number for {key}")]
    MissingLine {
        /// The file of /proc.
        path: &'static str,
        /// The line's name.
        key: &'static str,
    },
}

/// Something between processes failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("process {rank} of {size} at {address}: {what} failed: {who} ({message})")]
pub struct GroupFailure {
    /// The operation.
    pub what: &'static str,
    /// This process.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Where they meet.
    pub address: String,
    /// Which process is at fault, as far as the others know.
    pub who: String,
    /// Ranks of the processes that do not answer.
    pub gone: Vec<usize>,
    /// What libtorch says.
    pub message: String,
}
