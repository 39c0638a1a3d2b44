//! Failures of remote objects, passed through readers that only know `io::Error`.

use std::error::Error as StdError;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A failure with more information than an error of the operating system.
#[derive(Debug, Clone, thiserror::Error)]
#[cfg_attr(not(feature = "remote"), allow(dead_code))] // only remote storage fails in these ways
pub(crate) enum Failure {
    /// The object differs from the one that was opened.
    #[error("{path} has changed ({problem})", path = .path.display())]
    Changed { path: PathBuf, problem: String },
    /// The object could not be read within the allowed number of tries and the time limit.
    #[error("cannot read {path}: {problem}", path = .path.display())]
    Unread { path: PathBuf, problem: String },
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::other(failure)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Changed { path, problem } => Self::ShardChanged { path, problem },
            Failure::Unread { path, problem } => Self::Remote { path, problem },
        }
    }
}

/// Returns the error for a failed read of the blob at `path`, with more information if the storage
/// provided it.
pub(crate) fn read_error(path: &Path, source: io::Error) -> Error {
    match failure_in(&source) {
        Some(failure) => failure.into(),
        None => Error::Io { action: "read", path: path.into(), source },
    }
}

/// Returns the storage's failure in the chain of causes, if there is one.
pub(crate) fn failure_in(error: &(dyn StdError + 'static)) -> Option<Failure> {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return Some(failure.clone());
    }
    // `source` does not return the error inside an `io::Error`.
    let held = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
    match held {
        Some(held) => failure_in(held),
        None => error.source().and_then(failure_in),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("while reading a header")]
    struct Wrapped(#[source] io::Error);

    #[test]
    fn a_failure_is_found_however_deep() {
        let failure = Failure::Changed { path: "a".into(), problem: "b".into() };
        let deep = io::Error::other(Wrapped(io::Error::other(Wrapped(failure.into()))));
        assert!(matches!(read_error(Path::new("x"), deep), Error::ShardChanged { .. }));
        let plain = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert!(matches!(read_error(Path::new("x"), plain), Error::Io { .. }));
    }
}
