//! Errors about feature files.

use std::error::Error as StdError;
use std::path::Path;

use crate::error::Error;

/// The content of a file is not what it must be.
pub(super) fn wrong(path: &Path, problem: String) -> Error {
    Error::FeatureFile { path: path.to_owned(), problem }
}

/// A file cannot be read.
pub(super) fn unreadable<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unreadable { path: path.to_owned(), source: Box::new(error) }
}

/// A file cannot be written.
pub(super) fn unwritten<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unwritten { path: path.to_owned(), source: Box::new(error) }
}
