//! The settings of a run on disk, and which of them its mathematics depends on.

use std::collections::BTreeMap;

use serde_json::Value;
use trainer::checkpoint;

use super::environment;
use super::run_dir::RunDir;
use super::team::Team;
use crate::config::{Loaded, RunConfig};
use crate::failure::Result;

/// Writes `config.yaml`, `config.resolved.yaml` and `env.json`.
///
/// # Errors
/// The disk does not take them.
pub fn write(dir: &RunDir, loaded: &Loaded, team: &Team, fingerprint: &str) -> Result<()> {
    let resolved = loaded.config.to_yaml()?;
    let environment = serde_json::to_vec_pretty(&environment::describe(team, fingerprint))?;
    checkpoint::write_atomic(&dir.file("config.resolved.yaml"), resolved.as_bytes())?;
    checkpoint::write_atomic(&dir.file("env.json"), &environment)?;
    checkpoint::write_atomic(&dir.file("config.yaml"), loaded.text.as_bytes())?;
    Ok(())
}

/// Keys that may change when a run is continued: they do not enter the mathematics. The data set
/// is compared by its fingerprint, so it may have moved.
const FREE_KEYS: [&str; 26] = [
    "run.name",
    "run.dir",
    "run.device",
    "run.threads",
    "run.timeout_s",
    "init.from",
    "data.source",
    "data.path",
    "data.mix",
    "data.cache",
    "data.remote_retries",
    "data.remote_timeout_s",
    "data.cache_gb",
    "data.workers",
    "data.prefetch",
    "data.max_bad_fraction",
    "data.shard_cache_gb",
    "data.spill_dir",
    "train.accumulate",
    "train.stop_after",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_skipped_steps",
    "data.synthetic",
    "probe",
];

/// Keys that are younger than some checkpoints, with what those runs did: left out where they say the
/// same, so that such a checkpoint can be continued.
const LATER_KEYS: [(&str, &str); 1] = [("prototypes.teacher_temp_warmup_form", "inclusive")];

/// The settings that a continued run must share with its checkpoint, by dotted key.
///
/// # Errors
/// None in practice: every section can be written.
pub fn mathematics(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
    let mut settings = BTreeMap::new();
    flatten("", &serde_json::to_value(config)?, &mut settings);
    settings.retain(|key, _| {
        !FREE_KEYS.iter().any(|free| {
            key.strip_prefix(free).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    });
    settings.retain(|key, value| !LATER_KEYS.contains(&(key, value.as_str().unwrap_or_default())));
    Ok(settings)
}

fn flatten(prefix: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                flatten(&path, value, into);
            }
        }
        _ => {
            into.insert(prefix.to_owned(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use objectives::config::WarmupForm;

    use super::*;

    #[test]
    fn a_younger_key_does_not_keep_an_older_checkpoint_from_being_continued() {
        let mut config = RunConfig::default();
        for (key, _) in LATER_KEYS {
            assert!(!mathematics(&config).unwrap().contains_key(key), "{key}");
        }
        config.prototypes.teacher_temp_warmup_form = WarmupForm::Exclusive;
        let settings = mathematics(&config).unwrap();
        assert_eq!(settings["prototypes.teacher_temp_warmup_form"], "exclusive");
    }
}
