//! Checkpoints of a run, which are either complete or absent.
//!
//! ```text
//! checkpoints/step-00000123/student.safetensors    weights of the student
//!                           teacher.safetensors    weights of the teacher
//!                           optimizer.safetensors  state of the optimizer
//!                           objective.safetensors  state of the loss, if it has any
//!                           state.json             step, epoch, seed, settings, data
//!                           manifest.json          SHA-256 of each file
//! checkpoints/latest                               name of the newest checkpoint
//! checkpoints/set-aside-1/step-00000456/           later ones, after a run has gone back
//! ```
//!
//! A checkpoint is written under a temporary name, flushed, and renamed; `latest` is updated last.
//! A reader therefore sees either an old checkpoint or a new one. A checkpoint of the same step is
//! moved to `.step-00000123.replaced` for that time and removed at the end, so that it is lost
//! neither if the save fails nor if the program is killed.

mod manifest;
mod resume;
mod retention;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub use manifest::{verify, verify_file};
pub use resume::{NewestCheckpoint, load, newest_intact};
use retention::LATEST;
pub use retention::{list, name_of, set_aside_after};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::files::{sync_dir, write_atomic, write_json};
use crate::learner::Learner;
use crate::start::Start;

/// The state of a run, apart from its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunState {
    /// Version of the layout of `state.json`.
    pub version: u32,
    /// Number of optimizer steps completed.
    pub step: u64,
    /// Epoch that the next step belongs to.
    pub epoch: u64,
    /// Number of images of that epoch that have been used.
    pub position: u64,
    /// Seed of the run.
    pub seed: u64,
    /// Fingerprint of the dataset.
    pub data_fingerprint: String,
    /// Settings that affect the mathematics of the run, by key.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// Whether the measurements that were due after `step` are missing, because the run was asked
    /// to stop.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub probes_missing: bool,
}

impl RunState {
    /// Returns where a run continues from this state.
    pub fn start(&self) -> Start {
        Start { step: self.step, probes_missing: self.probes_missing }
    }
}

/// Layout of `state.json` that this version writes.
pub const STATE_VERSION: u32 = 1;

const STUDENT: &str = "student.safetensors";
const TEACHER: &str = "teacher.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const OBJECTIVE: &str = "objective.safetensors";
const STATE: &str = "state.json";

/// Saves a checkpoint under `dir`, updates `latest`, and removes the oldest checkpoints beyond
/// `keep`.
///
/// # Errors
/// Returns an error if writing fails; the existing checkpoints are then unchanged.
pub fn save(dir: &Path, learner: &Learner, state: &RunState, keep: usize) -> Result<PathBuf> {
    fs::create_dir_all(dir).map_err(Error::io(dir, "create the folder"))?;
    let target = dir.join(name_of(state.step));
    let temporary = dir.join(format!(".{}.partial", name_of(state.step)));
    let replaced = dir.join(format!(".{}.replaced", name_of(state.step)));
    let written =
        write_all(&temporary, learner, state).and_then(|()| put(&temporary, &target, &replaced));
    if let Err(error) = written {
        // Best effort: the first error matters, and the next save removes what is left.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    sync_dir(dir)?;
    write_atomic(&dir.join(LATEST), name_of(state.step).as_bytes())?;
    retention::keep_newest(dir, keep)?;
    Ok(target)
}

/// Exports the weights of the teacher, which are the result of a run: the backbone and its heads,
/// with the architecture in the metadata of the file.
///
/// # Errors
/// Returns an error if the folder cannot be created or the file cannot be written.
pub fn export_teacher(path: &Path, learner: &Learner, step: u64) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::io(parent, "create the folder"))?;
    }
    Ok(model::weights::write_safetensors(
        path,
        &learner.teacher.named(),
        &metadata(learner, "teacher", step)?,
    )?)
}

/// Renames a finished checkpoint to `target`. If there is one already, it is moved to `replaced`,
/// and moved back if the new one cannot be renamed.
fn put(finished: &Path, target: &Path, replaced: &Path) -> Result<()> {
    let replaces = target.exists();
    if replaces {
        if replaced.exists() {
            fs::remove_dir_all(replaced)
                .map_err(Error::io(replaced, "remove the replaced checkpoint"))?;
        }
        fs::rename(target, replaced).map_err(Error::io(target, "replace the checkpoint"))?;
    }
    fs::rename(finished, target).map_err(|error| {
        if replaces {
            // Best effort: the first error matters.
            let _ = fs::rename(replaced, target);
        }
        Error::io(target, "rename the checkpoint")(error)
    })
}

fn write_all(dir: &Path, learner: &Learner, state: &RunState) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).map_err(Error::io(dir, "clear an unfinished checkpoint"))?;
    }
    fs::create_dir_all(dir).map_err(Error::io(dir, "create the folder"))?;
    let parts = [
        (STUDENT, "student", learner.student.named()),
        (TEACHER, "teacher", learner.teacher.named()),
        (OPTIMIZER, "optimizer", learner.optimizer.state()),
        (OBJECTIVE, "objective", learner.objective_state()),
    ];
    for (file, role, tensors) in parts {
        let metadata = metadata(learner, role, state.step)?;
        model::weights::write_safetensors(&dir.join(file), &tensors, &metadata)?;
    }
    write_json(&dir.join(STATE), state)?;
    manifest::write(dir)?;
    sync_dir(dir)
}

/// Returns the metadata that a weight file stores about its network.
fn metadata(learner: &Learner, role: &str, step: u64) -> Result<BTreeMap<String, String>> {
    let config = learner.config();
    let json = |value: serde_json::Result<String>| {
        value.map_err(|e| Error::Settings(format!("cannot describe the network: {e}")))
    };
    Ok(BTreeMap::from([
        ("format".into(), "simdino".into()),
        ("role".into(), role.into()),
        ("step".into(), step.to_string()),
        ("seed".into(), config.seed.to_string()),
        ("model".into(), json(serde_json::to_string(&config.model))?),
        ("head".into(), json(serde_json::to_string(&config.head))?),
        ("mean".into(), json(serde_json::to_string(&config.normalize.mean))?),
        ("std".into(), json(serde_json::to_string(&config.normalize.std))?),
        ("value_range".into(), json(serde_json::to_string(&config.value_range))?),
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_the_same_step_is_kept_until_it_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (new, target, replaced) = (at("new"), at("step"), at("replaced"));
        let make = |folder: &Path, text: &str| {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join(STATE), text).unwrap();
        };
        let text = |folder: &Path| fs::read_to_string(folder.join(STATE)).unwrap();
        make(&target, "old");
        assert!(put(&new, &target, &replaced).is_err(), "there is nothing to rename");
        assert_eq!(text(&target), "old");
        make(&replaced, "left by a program that was killed");
        make(&new, "new");
        put(&new, &target, &replaced).unwrap();
        assert_eq!((text(&target), text(&replaced)), ("new".into(), "old".into()));
        assert!(!new.exists());
    }
}
