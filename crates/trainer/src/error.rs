//! Everything that can end a run.

use std::path::PathBuf;

/// Result of the trainer.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run could not start, go on, or be continued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The images could not be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A network could not be built, or its weights not read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The loss refused its input.
    #[error(transparent)]
    Objective(#[from] objectives::Error),
    /// libtorch refused a call.
    #[error(transparent)]
    Torch(#[from] torch_ext::Error),
    /// A plain tensor operation failed.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
    /// A file of the run could not be read or written.
    #[error("{}: cannot {action}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What was tried, as a verb with its object.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// A file of a checkpoint is not what its manifest says.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The settings of the run that is continued are not those of its checkpoint.
    #[error(
        "{} was made with other settings, which would change the result: {changes}; restore them, or start anew under another run.name",
        path.display()
    )]
    SettingsChanged {
        /// The checkpoint.
        path: PathBuf,
        /// The keys, with the value then and now.
        changes: String,
    },
    /// The settings do not fit together or the data.
    #[error("{0}")]
    Settings(String),
    /// Loss or gradient were not finite, too often in a row.
    #[error(
        "{what} at step {step}, the last of {row} lost in a row; the checkpoints before them are intact: lower optim.base_lr or raise optim.warmup_epochs, look at the images named in {}, and continue",
        images.display()
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// What is not finite, as a clause.
        what: String,
        /// Steps in a row.
        row: u64,
        /// File with the names of the step's images.
        images: PathBuf,
    },
    /// The weights are not numbers any more.
    #[error(
        "the student's weights are not finite after step {step}, and are not saved; the checkpoints before are intact: lower optim.base_lr or raise optim.warmup_epochs, and continue"
    )]
    Lost {
        /// The step, counted from 1.
        step: u64,
    },
    /// A probe failed.
    #[error("the {name} probe failed")]
    Probe {
        /// The probe.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runner could not take a record or a message.
    #[error("the run's output could not be written")]
    Output(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Attaches the path and what was tried to an I/O error.
    pub fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}
