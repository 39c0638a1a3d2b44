//! Errors of turning a config into a run.

use crate::config::schema::Unsupported;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Errors of turning a config into a run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Keys or values of a config are invalid. Holds one sentence per problem.
    #[error("{}", .0.join("\n"))]
    Config(Vec<String>),
    /// This machine does not have the device of the config.
    #[error(
        "device '{name}' is not available (CUDA devices found by libtorch: {count}); use the CPU \
         (run.device=cpu or --device cpu), or a machine with a GPU and a libtorch built for CUDA"
    )]
    NoDevice {
        /// The device that the config requests.
        name: String,
        /// Number of GPUs that libtorch sees.
        count: usize,
    },
    /// The images cannot be opened.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// The batch is larger than the dataset. The message suggests what to do.
    #[error("{0}")]
    Batch(String),
    /// None of the images that were tried can be read.
    #[error("none of the {tries} images tried can be read; the first is {name}")]
    Unreadable {
        /// Number of images tried.
        tries: usize,
        /// Name of the first image tried.
        name: String,
        /// Why it cannot be read.
        source: data::Error,
    },
    /// A weight file cannot be found or read, or a network cannot be built.
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
    /// A section cannot be serialized as JSON.
    #[error("cannot write the config")]
    Json(#[from] serde_json::Error),
    /// This crate cannot describe a config type, which is a bug in our code.
    #[error(transparent)]
    Schema(#[from] Unsupported),
}
