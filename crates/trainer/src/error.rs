//! Errors that can end a run.

use std::path::PathBuf;

/// Result type of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why a run could not start, continue, or be resumed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The images could not be read.
    #[error(transparent)]
    Data(#[from] data::Error),
    /// A network could not be built, or its weights could not be read or written.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// The loss rejected its input.
    #[error(transparent)]
    Objective(#[from] objectives::Error),
    /// libtorch returned an error.
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
        /// The attempted action, as a verb with its object.
        action: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A file of a checkpoint does not match its manifest.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// The settings of the resumed run differ from those of its checkpoint.
    #[error(
        "{} was made with other settings, which would change the result: {changes}; restore \
         them, or start a new run with another run.name",
        path.display()
    )]
    SettingsChanged {
        /// The checkpoint.
        path: PathBuf,
        /// The keys, with their old and new values.
        changes: String,
    },
    /// Another process failed; its own error says why.
    #[error("another process failed while {what}")]
    Elsewhere {
        /// What all processes did together.
        what: &'static str,
    },
    /// The settings do not fit together or do not fit the data.
    #[error("{0}")]
    Settings(String),
    /// The loss or the gradient was not finite too many times in a row.
    #[error(
        "{what} at step {step} (skipped steps in a row: {row}); earlier checkpoints are intact: \
         check the images listed in {}, or start another run with a lower optim.base_lr or a \
         longer optim.warmup_epochs",
        images.display()
    )]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// What is not finite, as a clause.
        what: String,
        /// Number of such steps in a row.
        row: u64,
        /// File with the names of the images of the step.
        images: PathBuf,
    },
    /// The weights are no longer finite.
    #[error(
        "the student's weights are not finite after step {step}, so they are not saved; earlier \
         checkpoints are intact: start another run with a lower optim.base_lr or a longer \
         optim.warmup_epochs"
    )]
    Lost {
        /// The step, counted from 1.
        step: u64,
    },
    /// A probe failed.
    #[error("the {name} probe failed")]
    Probe {
        /// The name of the probe.
        name: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The runner could not process a record or a message.
    #[error("the run's output could not be written")]
    Output(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Attaches the path and the attempted action to an I/O error.
    pub fn io(
        path: impl Into<PathBuf>,
        action: &'static str,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, action, source }
    }
}
