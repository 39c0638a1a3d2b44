//! What a training would do with the folder of its run.

use std::fmt;
use std::path::PathBuf;

use trainer::checkpoint;

use super::run_dir::{Resume, holds_run};
use super::start::{nothing_to_continue, run_root};
use crate::config::RunConfig;
use crate::failure::Result;

/// The folder of a run, and where the run would continue from.
pub struct Continuation {
    root: PathBuf,
    /// Whether the folder holds a run that may not be continued.
    refused: bool,
    /// The checkpoint to continue from; `None` for a new run.
    pub from: Option<PathBuf>,
}

impl Continuation {
    /// Finds out what `--resume` means for this config.
    ///
    /// # Errors
    /// Returns an error if what is to be continued does not exist, or every checkpoint is damaged.
    pub fn of(config: &RunConfig, resume: &Resume) -> Result<Self> {
        let root = run_root(config, resume)?;
        let newest = || checkpoint::newest_intact(&root.join("checkpoints")).map(|it| it.path);
        let from = match resume {
            Resume::Never => None,
            Resume::From(path) if path.join("state.json").is_file() => Some(path.clone()),
            Resume::From(_) => Some(newest()?.ok_or_else(|| nothing_to_continue(&root))?),
            Resume::Auto => newest()?,
        };
        let refused = *resume == Resume::Never && holds_run(&root);
        Ok(Self { root, refused, from })
    }
}

impl fmt::Display for Continuation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.root.display();
        match &self.from {
            Some(from) => write!(f, "{root}, continued from {}", from.display()),
            None if self.refused => write!(
                f,
                "{root} already holds a run: it can be continued with --resume auto, and a new one \
                 needs another run.name"
            ),
            None => write!(f, "{root}, from the beginning"),
        }
    }
}
