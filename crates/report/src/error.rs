//! Errors of rendering a report.

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of rendering a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such folder.
    #[error("{folder}: no such folder")]
    NoFolder {
        /// The folder.
        folder: String,
    },
    /// The folder contains nothing that belongs to a run.
    #[error("{folder} is not a run: {why}")]
    NotARun {
        /// The folder.
        folder: String,
        /// What is missing.
        why: String,
    },
}
