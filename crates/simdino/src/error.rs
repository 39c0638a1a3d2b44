//! What can go wrong between a config and a run.

use crate::config::schema::Unsupported;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong between a config and a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Keys or values of a config are wrong: one sentence for each.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// The device of the config is not on this machine.
    #[error(
        "device '{name}' is not available: libtorch sees {count} CUDA devices here; use \
         run.device=cpu, or a libtorch built for CUDA"
    )]
    NoDevice {
        /// What the config asks for.
        name: String,
        /// GPUs that libtorch sees.
        count: usize,
    },
    /// The images cannot be opened.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A batch is larger than the data set: what to do about it.
    #[error("{0}")]
    Batch(String),
    /// No image of a data set can be read, by all that was tried.
    #[error("none of the {tries} images tried can be read, the first {name}")]
    Unreadable {
        /// Images tried.
        tries: usize,
        /// Name of the first.
        name: String,
        /// Why it cannot be read.
        source: data::Error,
    },
    /// A weight file cannot be found or read.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The run cannot be planned, or its checkpoints are damaged.
    #[error(transparent)]
    Trainer(#[from] trainer::Error),
    /// libtorch cannot use the device.
    #[error(transparent)]
    Torch(#[from] torch_ext::Error),
    /// The coding rate cannot be computed.
    #[error(transparent)]
    Objective(#[from] objectives::Error),
    /// A libtorch operation failed.
    #[error(transparent)]
    Tensor(#[from] tch::TchError),
    /// A section cannot be written as JSON.
    #[error("cannot write the config")]
    Json(#[from] serde_json::Error),
    /// A config type that this crate cannot describe: a mistake in our code.
    #[error(transparent)]
    Schema(#[from] Unsupported),
}
