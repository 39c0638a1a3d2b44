//! The training loop: `load batch -> forward -> backward -> clip -> step -> ema -> log ->
//! checkpoint -> probe`, on one page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use data::config::{AugmentConfig, DataConfig};
use data::dataset::Dataset;
use data::loader::{BrokenImage, LoaderConfig, Position, TrainLoader};
use data::transform::MultiCrop;
use objectives::health::Watch;

use crate::checkpoint::{self, RunState, STATE_VERSION};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::input::Feed;
use crate::learner::{Learner, StepOutput};
use crate::meter::{Meter, read};
use crate::metrics::Record;
use crate::plan::Plan;
use crate::probe::Probe;
use crate::schedule::Schedules;

/// What a run needs besides its learner.
pub struct Job {
    /// The images.
    pub dataset: Arc<Dataset>,
    /// How they are read.
    pub data: DataConfig,
    /// How they are cropped.
    pub augment: AugmentConfig,
    /// Length and pace.
    pub train: TrainConfig,
    /// Step counts.
    pub plan: Plan,
    /// Schedules.
    pub schedules: Schedules,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of checkpoints.
    pub checkpoints: PathBuf,
    /// Where the teacher's weights go at the end.
    pub weights: PathBuf,
    /// Settings that the mathematics depends on; they travel in each checkpoint.
    pub settings: BTreeMap<String, serde_json::Value>,
}

/// What happens to what a run says.
pub trait Observer {
    /// A line of metrics.
    fn record(&mut self, record: &Record) -> Result<()>;
    /// Broken images met in a step.
    fn broken(&mut self, images: &[BrokenImage]) -> Result<()>;
    /// Something that the person at the run should know.
    fn warning(&mut self, text: &str);
    /// A checkpoint was written.
    fn checkpoint(&mut self, path: &Path) -> Result<()>;
    /// Whether the run was asked to stop after this step.
    fn stop_requested(&self) -> bool;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// After its last step.
    Finished,
    /// Early, as asked, with a checkpoint written.
    Stopped,
}

/// Trains from step `start` to the end of the plan.
///
/// # Errors
/// The first error of data, objective, disk or probe; checkpoints written before it stay.
pub fn run(
    job: &Job,
    learner: &mut Learner,
    start: u64,
    observer: &mut dyn Observer,
    probes: &mut [Box<dyn Probe>],
) -> Result<Outcome> {
    let plan = &job.plan;
    let mut feed = open_feed(job, learner, start)?;
    let mut meter = Meter::new(learner.config().device, job.train.batch_size);
    let mut watch = Watch::default();
    let mut previous: Option<StepOutput> = None;
    if start == 0 {
        meter.pause(|| probe(job, learner, 0, observer, probes))?;
    }
    for step in start..plan.last_step {
        let values = job.schedules.at(step);
        torch_ext::manual_seed(step_seed(job.seed, step));
        let output = learner.step(&values, plan.log_due(step + 1), || feed.next_views())?;
        check_finite(previous.as_ref(), step)?; // of the step before: this one may still be running

        let done = step + 1;
        let broken = feed.take_broken();
        meter.step_done(feed.take_waited(), broken.len(), &output);
        if !broken.is_empty() {
            observer.broken(&broken)?;
        }
        if plan.log_due(done) {
            observer.record(&meter.record(done, plan, &values, &output)?)?;
            let look = |signals| watch.look(step, values.progress, signals);
            if let Some(warning) = output.signals.as_ref().and_then(look) {
                observer.warning(&warning);
            }
        }
        // Probe and log come first, so that a checkpoint's step has all its lines on disk.
        let stop = observer.stop_requested() && done < plan.last_step;
        if !stop && plan.probe_due(done) {
            meter.pause(|| probe(job, learner, done, observer, probes))?;
        }
        if stop || plan.checkpoint_due(done) {
            check_finite(Some(&output), done)?; // never save what is lost
            meter.pause(|| save(job, learner, done, observer))?;
        }
        if stop {
            return Ok(Outcome::Stopped);
        }
        previous = Some(output);
    }
    checkpoint::export_teacher(&job.weights, learner, plan.last_step)?;
    Ok(Outcome::Finished)
}

/// Opens the loader at the first batch of step `start`.
fn open_feed(job: &Job, learner: &Learner, start: u64) -> Result<Feed> {
    let config = LoaderConfig {
        seed: job.seed,
        global_batch: job.train.batch_size,
        accumulate: job.train.accumulate,
        rank: 0,
        world_size: 1,
        workers: job.data.workers,
        prefetch: job.data.prefetch,
        max_bad_fraction: job.data.max_bad_fraction,
    };
    let position = Position {
        epoch: start / job.plan.steps_per_epoch,
        step: start % job.plan.steps_per_epoch,
    };
    let multi_crop = MultiCrop::new(&job.augment);
    let loader = TrainLoader::new(Arc::clone(&job.dataset), multi_crop, config, position)?;
    let config = learner.config();
    Ok(Feed::new(loader, config.normalize.clone(), config.device))
}

/// Seed of torch's generators at a step: whatever came before it does not matter.
fn step_seed(seed: u64, step: u64) -> u64 {
    // SplitMix64, so that neighbouring steps and seeds share nothing
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step.wrapping_add(0x6a09_e667_f3bc_c909);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn check_finite(output: Option<&StepOutput>, step: u64) -> Result<()> {
    match output {
        Some(output) if !read(&output.loss).is_finite() || !read(&output.grad_norm).is_finite() => {
            let terms = output.terms.iter().map(|(name, term)| format!("{name} {}", read(term)));
            Err(Error::NotFinite { step, terms: terms.collect::<Vec<_>>().join(", ") })
        }
        _ => Ok(()),
    }
}

fn save(job: &Job, learner: &Learner, done: u64, observer: &mut dyn Observer) -> Result<()> {
    let state = RunState {
        version: STATE_VERSION,
        step: done,
        epoch: done / job.plan.steps_per_epoch,
        position: done % job.plan.steps_per_epoch * job.train.batch_size as u64,
        seed: job.seed,
        data_fingerprint: job.dataset.fingerprint(),
        settings: job.settings.clone(),
    };
    let path = checkpoint::save(&job.checkpoints, learner, &state, job.train.keep_checkpoints)?;
    observer.checkpoint(&path)
}

fn probe(
    job: &Job,
    learner: &Learner,
    done: u64,
    observer: &mut dyn Observer,
    probes: &mut [Box<dyn Probe>],
) -> Result<()> {
    let mut record = Record { step: done, epoch: job.plan.epoch(done), values: Vec::new() };
    for probe in probes {
        let values = probe
            .measure(&learner.teacher.network.backbone)
            .map_err(|source| Error::Probe { name: probe.name().to_owned(), source })?;
        record.values.extend(values);
    }
    if record.values.is_empty() { Ok(()) } else { observer.record(&record) }
}
