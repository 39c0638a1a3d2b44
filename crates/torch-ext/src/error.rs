//! Errors of the shim.

use tch::{Device, Kind};

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors in or around libtorch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch threw an exception or rejected a tensor.
    #[error("{what}: {message}")]
    Torch {
        /// The requested operation.
        what: &'static str,
        /// The message of libtorch, without its backtrace unless `TORCH_SHOW_CPP_STACKTRACES` is
        /// 1.
        message: String,
    },
    /// tch rejected a tensor.
    #[error("{0}")]
    Tch(#[from] tch::TchError),
    /// Corresponding lists have different lengths.
    #[error("{what}: {name} has {got} tensors, expected {expected}")]
    Length {
        /// The requested operation.
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
        /// The requested operation.
        what: &'static str,
        /// The requested device.
        device: Device,
    },
    /// Autocast does not support this data type.
    #[error("autocast supports half and bfloat16 (got {0:?})")]
    AutocastKind(Kind),
    /// `CUBLAS_WORKSPACE_CONFIG` configures cuBLAS in a way that makes matrix products
    /// nondeterministic.
    #[error(
        "CUBLAS_WORKSPACE_CONFIG is {got:?}, which makes matrix products nondeterministic: unset \
         it, or set it to :4096:8 or :16:8"
    )]
    Workspace {
        /// The value of the variable.
        got: String,
    },
    /// An environment variable of a launcher is not set, although others are.
    #[error("{name} is not set, but {beside} is: {advice}")]
    LaunchMissing {
        /// The variable.
        name: &'static str,
        /// A variable that is set.
        beside: &'static str,
        /// What to do.
        advice: &'static str,
    },
    /// An environment variable of a launcher has an invalid value.
    #[error("{name}: expected {expected} (got {got:?})")]
    LaunchValue {
        /// The variable.
        name: &'static str,
        /// Its value.
        got: String,
        /// A description of valid values.
        expected: String,
    },
    /// A collective operation failed: a process has died, is late, or does something else.
    #[error(transparent)]
    Group(Box<GroupFailure>),
    /// The processes do not train the same network.
    #[error(
        "process {rank} has {got} where process 0 has {expected}: do all processes run the same \
         config?"
    )]
    Parameters {
        /// The process that differs from process 0.
        rank: usize,
        /// Its first parameter that differs: name, shape, and data type.
        got: String,
        /// The corresponding parameter of process 0.
        expected: String,
    },
    /// No gradient reached some parameters, so their average over the processes is incomplete.
    #[error(
        "the loss does not depend on {names}: exclude them from the averaged parameters, or enable \
         the search for unused ones"
    )]
    UnusedParameters {
        /// Their names.
        names: String,
    },
    /// The group has no backend for tensors on this device.
    #[error("{what}: the group was joined for devices other than {device:?}")]
    GroupDevice {
        /// The operation.
        what: &'static str,
        /// The tensor's device.
        device: Device,
    },
    /// NCCL failed to initialize.
    #[error("NCCL failed to start on CUDA device {index}: {message}")]
    Nccl {
        /// Index of the device.
        index: usize,
        /// The message of libtorch.
        message: String,
    },
    /// The build has no NCCL.
    #[error(
        "this build has no NCCL, which training on several GPUs needs: run `cargo xtask setup`, or \
         put the headers of NCCL and CUDA next to libtorch, and build again"
    )]
    NcclNotBuilt,
    /// The system cannot start a thread.
    #[error("cannot start the {what} thread")]
    Thread {
        /// The purpose of the thread.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The system's memory information could not be read.
    #[error("cannot read {path}")]
    System {
        /// The file in /proc.
        path: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The system's memory information lacks a line, or the line has no number.
    #[error("{path} has no number for {key}")]
    MissingLine {
        /// The file in /proc.
        path: &'static str,
        /// The key of the line.
        key: &'static str,
    },
}

/// A failed collective operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("process {rank} of {size} at {address}: {what} failed: {who} ({message})")]
pub struct GroupFailure {
    /// The operation.
    pub what: &'static str,
    /// The rank of this process.
    pub rank: usize,
    /// Number of processes.
    pub size: usize,
    /// Address of the rendezvous, as `HOST:PORT`.
    pub address: String,
    /// Which process is at fault, as far as is known.
    pub who: String,
    /// Ranks of the processes that do not respond.
    pub gone: Vec<usize>,
    /// The message of libtorch.
    pub message: String,
}

/// Returns an error if a list does not have `len` elements.
pub(crate) fn same_length(
    what: &'static str,
    len: usize,
    lists: &[(&'static str, usize)],
) -> Result<()> {
    match lists.iter().find(|(_, got)| *got != len) {
        Some(&(name, got)) => Err(Error::Length { what, name, expected: len, got }),
        None => Ok(()),
    }
}
