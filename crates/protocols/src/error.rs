//! The errors of this crate.

use std::path::PathBuf;

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why a protocol cannot measure a network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is out of range.
    #[error("{name}: {problem}")]
    Setting {
        /// The setting, in the words of the option of `simdino eval`.
        name: &'static str,
        /// What is wrong with it, and how to fix it.
        problem: String,
    },
    /// The images of a labeled set cannot be learned from or tested on.
    #[error("{path}")]
    Labels {
        /// The set: `train` or `test`.
        set: &'static str,
        /// Its path, as given by the user.
        path: String,
        /// What is wrong.
        source: Box<eval::Error>,
    },
    /// Files of a protocol are missing or do not belong together.
    #[error("{0}")]
    Input(String),
    /// A folder cannot be created.
    #[error("{}: cannot create the folder", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A folder of kept features cannot be used.
    #[error("{}", path.display())]
    Features {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        source: Box<eval::Error>,
    },
    /// Features, a head, or scores cannot be computed.
    #[error(transparent)]
    Eval(#[from] eval::Error),
    /// Images cannot be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// Masks cannot be found.
    #[error(transparent)]
    Objects(#[from] objects::Error),
    /// Masks or tracks cannot be scored.
    #[error(transparent)]
    Score(#[from] score::Error),
    /// A mask cannot be encoded or decoded.
    #[error(transparent)]
    Mask(#[from] score::MaskError),
    /// The network cannot be created.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// Settings cannot be stored in a record.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A libtorch operation failed.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
}

/// Creates an error about files.
pub(crate) fn input(problem: String) -> Error {
    Error::Input(problem)
}

/// Checks that counts are at least 1.
pub(crate) fn at_least_one(name: &'static str, values: &[usize]) -> Result<()> {
    match values.contains(&0) {
        false => Ok(()),
        true => Err(Error::Setting { name, problem: "must be at least 1 (got 0)".to_owned() }),
    }
}

/// Checks that a number is greater than 0.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<()> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => {
            Err(Error::Setting { name, problem: format!("must be greater than 0 (got {value})") })
        }
    }
}
