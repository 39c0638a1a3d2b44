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
        /// libtorch's own words, without its backtrace.
        message: String,
    },
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
    /// Something between processes failed: one of them is gone, late, or does something else.
    #[error(
        "process {rank} of {size} at {address}: {what} failed; is every process running and at the same step? ({message})"
    )]
    Group {
        /// The operation.
        what: &'static str,
        /// This process.
        rank: usize,
        /// Number of processes.
        size: usize,
        /// Where they meet.
        address: String,
        /// What libtorch says.
        message: String,
    },
    /// Tensors of this device do not travel between processes yet.
    #[error("{what}: tensors travel between processes on the cpu so far (got {device:?})")]
    GroupDevice {
        /// The operation.
        what: &'static str,
        /// The tensor's device.
        device: Device,
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
