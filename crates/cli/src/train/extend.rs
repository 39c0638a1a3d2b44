//! Explains how to train longer, for a run that was resumed with a different number of epochs.

use std::fs;
use std::path::Path;

use super::run_dir::RunDir;
use crate::config::{RunConfig, read_yaml};
use crate::failure::Failure;
use crate::shell::typed;

/// If the number of epochs of a resumed run has changed, adds to its failure the command that
/// starts a new run from its weights. `what` and `overrides` are the config and the `KEY=VALUE`
/// arguments of the present command.
pub fn explain(
    failure: Failure,
    dir: &RunDir,
    config: &RunConfig,
    (what, overrides): (&Path, &[String]),
) -> Failure {
    let Some(before) = epochs(&dir.file("config.resolved.yaml")) else { return failure };
    let now = config.train.epochs;
    if before == now {
        return failure;
    }
    let kept = overrides.iter().filter(|value| {
        !["run.name=", "init.from=", "init.head="].iter().any(|key| value.starts_with(key))
    });
    let mut words = vec!["train".to_owned(), what.display().to_string()];
    words.extend(kept.cloned());
    let name = dir.root().file_name().unwrap_or_default().to_string_lossy();
    words.push(format!("run.name={name}-longer"));
    words.push(format!("init.from={}", dir.root().display()));
    words.push("init.head=true".to_owned());
    failure.and(format!(
        "train.epochs was {before} and is now {now}: the schedules of the learning rate, weight \
         decay, and momentum depend on it, so it cannot change within a run; to start a new run \
         from the weights of the teacher instead: {}",
        typed(&words)
    ))
}

/// Reads the number of epochs from the resolved config of a run, if there is one.
fn epochs(path: &Path) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    read_yaml(&text).ok()?.pointer("/train/epochs")?.as_f64()
}
