//! Constructors for errors about feature files.

use std::error::Error as StdError;
use std::path::Path;

use crate::error::Error;

/// Returns the error for a file with invalid content.
pub(super) fn wrong(path: &Path, problem: String) -> Error {
    Error::FeatureFile { path: path.to_owned(), problem }
}

/// Returns a function that wraps the error of reading a file.
pub(super) fn unreadable<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unreadable { path: path.to_owned(), source: Box::new(error) }
}

/// Returns a function that wraps the error of writing a file.
pub(super) fn unwritten<E: StdError + Send + Sync + 'static>(
    path: &Path,
) -> impl FnOnce(E) -> Error {
    |error| Error::Unwritten { path: path.to_owned(), source: Box::new(error) }
}
