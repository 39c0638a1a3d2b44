//! The folder of a run. It is locked by one process, and a run that has made progress is never
//! overwritten.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use trainer::metrics::read_jsonl;

use crate::console::note;
use crate::failure::{Context, Failure, Result};

/// The folder of a run, locked for this process until dropped.
pub struct RunDir {
    root: PathBuf,
    /// Whether it held a run that had hardly begun, which this run replaces.
    pub restarted: bool,
    /// The locked file, held only by the first process.
    _lock: Option<File>,
}

/// How to treat a folder that already holds a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resume {
    /// Refuse it, unless the run had hardly begun.
    Never,
    /// Continue it from its latest checkpoint, or start anew if there is none.
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
            path => {
                let path = PathBuf::from(path);
                Self::From(simdino::weights::pointed_to(&path).unwrap_or(path))
            }
        })
    }
}

impl RunDir {
    /// Opens the folder of a run for writing.
    ///
    /// # Errors
    /// Returns an error if the folder holds a run that has made progress and `resume` is
    /// [`Resume::Never`], if it cannot be written, or if another process trains in it. A folder
    /// that was created in vain is removed again.
    pub fn open(root: &Path, resume: &Resume) -> Result<Self> {
        let restarted = *resume == Resume::Never && root.join("config.yaml").exists();
        if restarted && holds_run(root) {
            return Err(Failure::usage(format!(
                "{} already holds a run: continue it with --resume auto, or choose another run.name",
                root.display()
            )));
        }
        let existed = root.exists();
        fs::create_dir_all(root).context(|| {
            format!("{}: cannot create the run folder (choose another run.dir)", root.display())
        })?;
        let dir = Self::lock(root).inspect_err(|_| {
            if !existed {
                // This removes the folder only if it is empty.
                let _ = fs::remove_dir(root);
            }
        })?;
        Ok(Self { restarted, ..dir })
    }

    /// Opens the folder in the other processes of a run, once the first one has created it.
    ///
    /// # Errors
    /// Returns an error if this process does not see the folder.
    pub fn of_others(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Failure::failed(format!(
                "{} does not exist here, although the first process created it: run.dir must be on \
                 a disk that all processes share",
                root.display()
            )));
        }
        Ok(Self { root: root.to_owned(), restarted: false, _lock: None })
    }

    fn lock(root: &Path) -> Result<Self> {
        let path = root.join(".lock");
        let lock = File::create(&path).context(|| {
            format!("{}: cannot write to the run folder (choose another run.dir)", root.display())
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::failed(format!(
                    "{}: another simdino process is training in this folder; wait for it, or \
                     choose another run.name",
                    root.display()
                )));
            }
            Err(TryLockError::Error(error)) => note(&format!(
                "warning: {}: cannot be locked ({error}), so nothing stops another process from \
                 training in this folder",
                root.display()
            )),
        }
        Ok(Self { root: root.to_owned(), restarted: false, _lock: Some(lock) })
    }

    /// Returns the path of the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the path of a file or folder of the run. `docs/ARCHITECTURE.md` lists the names.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// A run without a checkpoint that has done at most this many steps may be replaced.
const FEW_STEPS: u64 = 10;

/// Returns whether a folder holds a run that has made progress.
pub fn holds_run(root: &Path) -> bool {
    root.join("config.yaml").exists() && !has_hardly_begun(root)
}

/// Returns whether the run in a folder stopped before anything was worth keeping: it has no
/// checkpoint, no weights, and metrics of at most [`FEW_STEPS`] steps.
fn has_hardly_begun(root: &Path) -> bool {
    let is_empty =
        |name: &str| fs::read_dir(root.join(name)).map_or(true, |mut it| it.next().is_none());
    let metrics = root.join("metrics.jsonl");
    let few = !metrics.exists()
        || read_jsonl(&metrics).is_ok_and(|records| records.iter().all(|r| r.step <= FEW_STEPS));
    is_empty("checkpoints") && is_empty("weights") && few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_that_has_hardly_begun_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let open = || RunDir::open(root, &Resume::Never).map(|dir| dir.restarted).ok();
        assert_eq!(open(), Some(false));
        fs::write(root.join("config.yaml"), "").unwrap();
        fs::create_dir(root.join("checkpoints")).unwrap();
        assert_eq!(open(), Some(true));
        let metrics = |step: u64| {
            fs::write(root.join("metrics.jsonl"), format!("{{\"step\":{step},\"epoch\":0}}\n"))
                .unwrap();
        };
        metrics(FEW_STEPS);
        assert_eq!(open(), Some(true));
        metrics(FEW_STEPS + 1);
        assert_eq!(open(), None);
        metrics(2);
        fs::create_dir(root.join("checkpoints/step-00000002")).unwrap();
        assert_eq!(open(), None);
        assert!(RunDir::open(root, &Resume::Auto).is_ok());
    }
}
