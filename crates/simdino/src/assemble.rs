//! Turns a config into the inputs of the training loop: the plan, the learner, and the job.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use augment::{AugmentConfig, EvalTransform};
use data::batch::BatchGeometry;
use data::{DataConfig, Dataset};
use model::normalize::Normalize;
use objectives::Objective;
use serde_json::Value;
use tch::Device;
use trainer::learner::{Learner, LearnerConfig};
use trainer::plan::Plan;
use trainer::processes::Processes;
use trainer::run::TrainingJob;
use trainer::schedule::Schedules;

use crate::config::{RunConfig, schema};
use crate::error::Result;

/// Plans the steps of a run on this dataset.
///
/// # Errors
/// Returns an error if there are fewer images than a batch requires.
pub fn plan(config: &RunConfig, dataset: &Dataset) -> Result<Plan> {
    Ok(Plan::new(&config.train, dataset.len())?)
}

/// Builds all inputs of the loop except the learner. `folder` is the folder of the run, to which
/// checkpoints and weights are written. If `data.workers` is absent, the number of workers is that
/// of [`workers`] under the assumption that all processes are on this machine; if they are not, set
/// `data.workers` of the job.
///
/// # Errors
/// No errors are known, because every section can be serialized.
pub fn job(
    config: &RunConfig,
    dataset: Arc<Dataset>,
    plan: Plan,
    folder: &Path,
    processes: Processes,
) -> Result<TrainingJob> {
    let workers = Some(workers(config.data.workers, processes.size()));
    Ok(TrainingJob {
        dataset,
        data: DataConfig { workers, ..config.data.clone() },
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

/// Returns the number of threads that prepare images in each of `processes_here` processes on this
/// machine: the configured number, or else the process's share of the cores minus one, which is
/// left to the training step.
pub fn workers(configured: Option<usize>, processes_here: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    configured.unwrap_or_else(|| share(cores, processes_here))
}

fn share(cores: usize, processes_here: usize) -> usize {
    (cores / processes_here.max(1)).saturating_sub(1).max(1)
}

/// Returns the schedules of a run.
pub fn schedules(config: &RunConfig, plan: &Plan) -> Schedules {
    let batch = config.train.batch_size;
    Schedules::new(&config.optim, batch, plan.steps_per_epoch, plan.total_steps)
        .with_frozen_backbone(config.init.freeze_backbone_steps)
}

/// Returns the geometry of a step's batch, including the part that this process handles.
///
/// # Errors
/// Returns an error if the batch cannot be divided.
fn geometry(config: &RunConfig, processes: &Processes) -> Result<BatchGeometry> {
    let batch = BatchGeometry::new(config.train.batch_size)?;
    let batch = batch.accumulated(config.train.accumulate)?;
    Ok(batch.of_process(processes.rank(), processes.size())?)
}

/// Creates the learner of a run: student and teacher with new weights, and the objective of the
/// method.
///
/// # Errors
/// Returns an error if the config is invalid, the processes cannot share its batch, or another
/// process has a different network.
pub fn learner(config: &RunConfig, device: Device, processes: Processes) -> Result<Learner> {
    learner_with(config, config.objective().build()?, device, processes)
}

/// Creates the learner of a run that trains a custom objective. `config.method` is ignored,
/// although the config of the networks usually comes from its recipe. `examples/own_objective.rs`
/// trains such a run.
///
/// # Errors
/// Same as [`learner`]. Also returns an error if the networks lack an output that the objective
/// needs.
pub fn learner_with(
    config: &RunConfig,
    objective: Box<dyn Objective>,
    device: Device,
    processes: Processes,
) -> Result<Learner> {
    let geometry = geometry(config, &processes)?;
    Ok(Learner::new(learner_config(config, geometry, device), objective, processes)?)
}

fn learner_config(config: &RunConfig, geometry: BatchGeometry, device: Device) -> LearnerConfig {
    LearnerConfig {
        model: config.model.clone(),
        head: config.head.clone(),
        optim: config.optim.clone(),
        precision: config.train.precision,
        geometry,
        seed: config.run.seed,
        normalize: normalize(&config.augment),
        value_range: config.data.value_range.clone(),
        cuda_graph: config.train.cuda_graph,
        device,
    }
}

/// Returns the normalization of a run's images.
pub fn normalize(augment: &AugmentConfig) -> Normalize {
    Normalize { mean: augment.mean.clone(), std: augment.std.clone() }
}

/// Returns the transform of the images of a run's probe: a resize to `probe.resize`, or by default
/// to 8/7 of the model's image size, and a crop to the model's image size.
pub fn probe_transform(config: &RunConfig) -> EvalTransform {
    let crop = u32::try_from(config.model.image_size).unwrap_or(u32::MAX);
    match config.probe.resize {
        None => EvalTransform::for_crop(crop),
        Some(resize) => EvalTransform { resize, crop },
    }
}

/// Returns the settings that a resumed run must share with its checkpoint, by dotted key: all
/// except those that the config structs mark with `x-on-resume`, on which the result does not
/// depend. The dataset is compared by its fingerprint, so it may have moved.
///
/// # Errors
/// No errors are known, because every section can be serialized and described.
pub fn resume_settings(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
    let (root, values) = (schema::of::<RunConfig>()?, serde_json::to_value(config)?);
    let value_at = |path: &str| path.split('.').try_fold(&values, |at, key| at.get(key)).cloned();
    let fixed = schema::leaves(&root).into_iter().filter(|(_, key)| !key.may_change_on_resume);
    let settings = fixed.map(|(path, _)| {
        let value = value_at(&path).unwrap_or_default();
        (path, value)
    });
    let mut settings: BTreeMap<String, Value> = settings.collect();
    if config.simdino.group_rows.is_some() {
        settings.remove("simdino.rate_groups"); // without effect beside `group_rows`
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_of_each_process_is_left_to_its_step() {
        for (cores, here, expected) in [(1, 1, 1), (2, 1, 1), (16, 1, 15), (16, 8, 1), (192, 8, 23)]
        {
            assert_eq!(share(cores, here), expected, "{cores} cores, {here} processes");
        }
        assert_eq!(share(4, 0), 3);
        let dataset = Arc::new(data::open(&drawn()).unwrap());
        for (configured, expected) in [(Some(5), 5), (None, workers(None, 1))] {
            let mut config = RunConfig { data: drawn(), ..RunConfig::default() };
            (config.data.workers, config.train.batch_size) = (configured, 4);
            let (dataset, plan) = (dataset.clone(), plan(&config, &dataset).unwrap());
            let job = job(&config, dataset, plan, Path::new("run"), Processes::Single).unwrap();
            assert_eq!(job.data.workers, Some(expected));
        }
    }

    fn drawn() -> DataConfig {
        let synthetic = data::SyntheticConfig { count: 4, size: 16, seed: 0 };
        DataConfig { source: data::SourceKind::Synthetic, synthetic, ..DataConfig::default() }
    }

    #[test]
    fn a_resumed_run_shares_what_its_result_depends_on() {
        let config = RunConfig::default();
        let settings = resume_settings(&config).unwrap();
        for fixed in ["run.seed", "method", "optim.base_lr", "data.min_side", "train.batch_size"] {
            assert!(settings.contains_key(fixed), "{fixed}");
        }
        assert_eq!(settings["train.batch_size"], 512);
        for free in ["run.name", "data.workers", "data.synthetic.seed", "probe.k", "data.mix"] {
            assert!(!settings.contains_key(free), "{free}");
        }
    }
}
