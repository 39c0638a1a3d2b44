//! Finds, verifies, and loads checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{
    OBJECTIVE, OPTIMIZER, RunState, STATE, STATE_VERSION, STUDENT, TEACHER, retention, verify,
};
use crate::branch::Branch;
use crate::error::{Error, Result};
use crate::files::read_json;
use crate::learner::Learner;
use crate::optim::copy_named;

/// The newest intact checkpoint, and the problems with newer ones.
#[derive(Debug)]
pub struct NewestCheckpoint {
    /// Folder of the checkpoint; `None` if the run has none yet.
    pub path: Option<PathBuf>,
    /// Newer checkpoints that were skipped, each with the reason.
    pub damaged: Vec<String>,
}

/// Finds the newest intact checkpoint in `dir`, checking from the newest to the oldest.
///
/// # Errors
/// Returns an error if there are checkpoints but none is intact.
pub fn newest_intact(dir: &Path) -> Result<NewestCheckpoint> {
    let mut damaged = Vec::new();
    let mut first_error = None;
    for (_, path) in retention::list(dir)?.into_iter().rev() {
        match verify(&path) {
            Ok(()) => return Ok(NewestCheckpoint { path: Some(path), damaged }),
            Err(error) => {
                damaged.push(base::error_chain(&error));
                first_error.get_or_insert(error);
            }
        }
    }
    first_error.map_or(Ok(NewestCheckpoint { path: None, damaged }), Err)
}

/// The part of `state.json` that every version has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

/// Loads a checkpoint into a learner with the same settings, and returns the state of the run.
///
/// # Errors
/// Returns an error if a file differs from the manifest, if settings or data have changed in a way
/// that changes the mathematics, or if a tensor does not fit.
pub fn load(
    path: &Path,
    learner: &mut Learner,
    settings: &BTreeMap<String, serde_json::Value>,
    data_fingerprint: &str,
) -> Result<RunState> {
    verify(path)?;
    let Version { version } = read_json(&path.join(STATE))?;
    if version != STATE_VERSION {
        return Err(Error::Checkpoint {
            path: path.to_owned(),
            reason: format!(
                "has checkpoint format {}, but this version reads format {STATE_VERSION}: resume \
                 it with the version that wrote it",
                version
            ),
        });
    }
    let state: RunState = read_json(&path.join(STATE))?;
    check_settings(path, &state, settings, data_fingerprint)?;
    load_side(&path.join(STUDENT), &mut learner.student)?;
    load_side(&path.join(TEACHER), &mut learner.teacher)?;
    let optimizer = model::weights::read_safetensors(&path.join(OPTIMIZER))?;
    learner.optimizer.load_state(&optimizer.tensors)?;
    let objective = model::weights::read_safetensors(&path.join(OBJECTIVE))?;
    learner.load_objective_state(&objective.tensors.into_iter().collect::<Vec<_>>())?;
    Ok(state)
}

/// Keys that have no effect if another key is set, each with that key.
const REPLACED_BY: [(&str, &str); 1] = [("simdino.rate_groups", "simdino.group_rows")];

fn check_settings(
    path: &Path,
    state: &RunState,
    settings: &BTreeMap<String, serde_json::Value>,
    data_fingerprint: &str,
) -> Result<()> {
    let missing = serde_json::Value::Null;
    let had = |key: &str| state.settings.get(key).is_some_and(|value| !value.is_null());
    // A key that only the checkpoint states is one that may change in this version.
    let mut changes: Vec<String> = settings
        .iter()
        .filter_map(|(key, now)| {
            let then = state.settings.get(key).unwrap_or(&missing);
            let now = &as_read(now);
            let determined =
                !(then.is_null() && REPLACED_BY.iter().any(|(of, by)| of == key && had(by)));
            (then != now && determined).then(|| format!("{key} was {then}, is {now}"))
        })
        .collect();
    if state.data_fingerprint != data_fingerprint {
        changes.push("the images of data.path have changed".into());
    }
    if changes.is_empty() {
        return Ok(());
    }
    Err(Error::SettingsChanged { path: path.to_owned(), changes: changes.join("; ") })
}

/// Returns a value as it would be read from the text of a checkpoint, so that numbers whose last
/// bits the text does not preserve compare equal.
fn as_read(value: &serde_json::Value) -> serde_json::Value {
    serde_json::from_str(&value.to_string()).unwrap_or_else(|_| value.clone())
}

fn load_side(path: &Path, side: &mut Branch) -> Result<()> {
    let file = model::weights::read_safetensors(path)?;
    for (name, mut tensor) in side.named() {
        copy_named(&mut tensor, &name, &file.tensors)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns the state after a step of a run with these settings.
    fn state(settings: BTreeMap<String, serde_json::Value>) -> RunState {
        RunState {
            version: STATE_VERSION,
            step: 1,
            epoch: 0,
            position: 8,
            seed: 0,
            data_fingerprint: "same".into(),
            settings,
            probes_missing: false,
        }
    }

    #[test]
    fn settings_that_differ_are_named_and_those_of_an_earlier_version_are_not() {
        let of = |settings: &[(&str, serde_json::Value)]| {
            settings.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
        };
        let state = state(of(&[("optim.beta1", json!(0.9)), ("model.free_by_now", json!(0))]));
        let check = |settings: BTreeMap<_, _>, print: &str| {
            check_settings(Path::new("c"), &state, &settings, print).map_err(|e| e.to_string())
        };
        assert_eq!(check(of(&[("optim.beta1", json!(0.9))]), "same"), Ok(()));
        let changed = [("optim.beta1", json!(0.8)), ("model.new", json!(1))];
        let message = check(of(&changed), "other").unwrap_err();
        for part in [
            "optim.beta1 was 0.9, is 0.8",
            "model.new was null, is 1",
            "the images of data.path have changed",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn no_number_differs_from_itself() {
        // Numbers in f32 have many digits when they are written as f64.
        let stds: Vec<f32> =
            (0..20_000).map(|i| i as f32 * 1e-4).chain([0.2023, 0.1994, 0.201]).collect();
        let settings = BTreeMap::from([("augment.std".to_owned(), json!(stds))]);
        let state = state(settings.clone());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(STATE);
        crate::files::write_json(&path, &state).unwrap();
        let read: RunState = read_json(&path).unwrap();
        check_settings(dir.path(), &read, &settings, "same").unwrap();
    }
}
