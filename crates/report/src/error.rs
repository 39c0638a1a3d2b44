//! What can go wrong with a report.

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such folder.
    #[error("{folder}: no such folder")]
    NoFolder {
        /// The folder.
        folder: String,
    },
    /// Nothing in the folder belongs to a run.
    #[error("{folder} is not a run: {why}")]
    NotARun {
        /// The folder.
        folder: String,
        /// What is missing.
        why: String,
    },
}
