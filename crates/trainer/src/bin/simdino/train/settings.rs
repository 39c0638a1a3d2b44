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
