//! Turns a config into the inputs of the training loop: the plan, the learner's config, and the
//! job.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use augment::{AugmentConfig, EvalTransform};
use data::Dataset;
use model::normalize::Normalize;
use serde_json::Value;
use tch::Device;
use trainer::learner::LearnerConfig;
use trainer::plan::Plan;
use trainer::processes::Processes;
use trainer::run::TrainingJob;
use trainer::schedule::Schedules;

use crate::config::RunConfig;
use crate::error::Result;

/// Plans the steps of a run on these images.
///
/// # Errors
/// Returns an error if there are fewer images than a batch requires.
pub fn plan(config: &RunConfig, dataset: &Dataset) -> Result<Plan> {
    Ok(Plan::new(&config.train, config.probe.every_epochs, dataset.len())?)
}

/// Builds all inputs of the loop except the learner. `folder` is the folder of the run, in which
/// checkpoints and weights are written.
///
/// # Errors
/// None in practice, because every section can be serialized.
pub fn job(
    config: &RunConfig,
    dataset: Arc<Dataset>,
    plan: Plan,
    folder: &Path,
    processes: Processes,
) -> Result<TrainingJob> {
    Ok(TrainingJob {
        dataset,
        data: config.data.clone(),
        augment: config.augment.clone(),
        masks: config.masks.clone(),
        train: config.train.clone(),
        schedules: schedules(config, &plan),
        plan,
        seed: config.run.seed,
        checkpoints: folder.join("checkpoints"),
        weights: folder.join("weights/teacher.safetensors"),
        settings: resume_settings(config)?,
        processes,
    })
}

/// Returns the schedules of a run.
pub fn schedules(config: &RunConfig, plan: &Plan) -> Schedules {
    let batch = config.train.batch_size;
    Schedules::new(&config.optim, batch, plan.steps_per_epoch, plan.total_steps)
        .with_frozen_backbone(config.init.freeze_backbone_steps)
}

/// Returns the parts of a config that a learner needs.
pub fn learner_config(config: &RunConfig, device: Device) -> LearnerConfig {
    LearnerConfig {
        model: config.model.clone(),
        head: config.head.clone(),
        objective: config.objective(),
        optim: config.optim.clone(),
        precision: config.train.precision,
        batch_size: config.train.batch_size,
        accumulate: config.train.accumulate,
        seed: config.run.seed,
        normalize: normalize(&config.augment),
        value_range: config.data.value_range.clone(),
        device,
    }
}

/// Returns how a run normalizes its images.
pub fn normalize(augment: &AugmentConfig) -> Normalize {
    Normalize { mean: augment.mean.clone(), std: augment.std.clone() }
}

/// Returns the size at which the probe of a run sees images: that of the model, after a resize to
/// `probe.resize`, or to 8/7 of it if that is 0.
pub fn probe_transform(config: &RunConfig) -> EvalTransform {
    let crop = u32::try_from(config.model.image_size).unwrap_or(u32::MAX);
    match config.probe.resize {
        0 => EvalTransform::for_crop(crop),
        resize => EvalTransform { resize, crop },
    }
}

/// Keys that may change when a run is resumed, because they do not affect the mathematics. The
/// data set is compared by its fingerprint, so it may have moved.
const KEYS_IGNORED_ON_RESUME: [&str; 26] = [
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

/// Returns the settings that a resumed run must share with its checkpoint, by dotted key.
///
/// # Errors
/// None in practice, because every section can be serialized.
pub fn resume_settings(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
    let mut settings = BTreeMap::new();
    flatten("", &serde_json::to_value(config)?, &mut settings);
    settings.retain(|key, _| {
        !KEYS_IGNORED_ON_RESUME.iter().any(|free| {
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
