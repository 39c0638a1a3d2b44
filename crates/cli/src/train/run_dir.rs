//! The folder of a run: its file names. It is created once, locked by one process, and never
//! overwritten.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};

/// The folder of a run, locked for this process until dropped.
pub struct RunDir {
    root: PathBuf,
    /// Held by the process that writes.
    _lock: Option<File>,
}

/// How to treat a folder that already holds a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Refuse it.
    Never,
    /// Continue it from its newest checkpoint, or start where there is none.
    Auto,
    /// Continue this run, or this checkpoint of a run.
    From(PathBuf),
}

impl std::str::FromStr for Resume {
    type Err = std::convert::Infallible;

    fn from_str(word: &str) -> std::result::Result<Self, Self::Err> {
        Ok(match word {
            "never" => Self::Never,
            "auto" => Self::Auto,
            dir => Self::From(PathBuf::from(dir)),
        })
    }
}

impl RunDir {
    /// Opens the folder of a run for writing.
    ///
    /// # Errors
    /// It holds a run already and `resume` is [`Resume::Never`], it cannot be written, or another
    /// process trains in it. A folder that was made for nothing is removed again.
    pub fn open(root: &Path, resume: &Resume) -> Result<Self> {
        if *resume == Resume::Never && root.join("config.yaml").exists() {
            return Err(Failure::usage(format!(
                "{} already holds a run: continue it with --resume auto, or choose another run.name",
                root.display()
            )));
        }
        let existed = root.exists();
        fs::create_dir_all(root).context(|| {
            format!("{}: cannot create the run folder; choose another run.dir", root.display())
        })?;
        Self::lock(root).inspect_err(|_| {
            if !existed {
                // Leave no trace; a folder with anything in it stays.
                let _ = fs::remove_dir(root);
            }
        })
    }

    /// The same for the other processes of a run, once the first has opened it.
    ///
    /// # Errors
    /// This process does not see it.
    pub fn of_others(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Failure::failed(format!(
                "{} is not here, although the first process created it: run.dir must be on a disk that \
                 all processes share",
                root.display()
            )));
        }
        Ok(Self { root: root.to_owned(), _lock: None })
    }

    fn lock(root: &Path) -> Result<Self> {
        let path = root.join(".lock");
        let lock = File::create(&path).context(|| {
            format!("{}: cannot write to the run folder; choose another run.dir", root.display())
        })?;
        lock.try_lock().map_err(|_| {
            Failure::failed(format!(
                "{}: another simdino is training in this folder; wait for it, or choose another run.name",
                root.display()
            ))
        })?;
        Ok(Self { root: root.to_owned(), _lock: Some(lock) })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A file or folder of the run; the names are those of `docs/ARCHITECTURE.md`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}
