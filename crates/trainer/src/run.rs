//! The training loop: `load batch -> forward -> backward -> clip -> step -> ema -> log -> probe ->
//! checkpoint`, on one page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use augment::{AugmentConfig, MultiCrop};
use data::loader::{BrokenImage, LoaderConfig, Position, ViewPlan};
use data::masking::{MaskConfig, MaskGenerator};
use data::{DataConfig, Dataset};
use objectives::health::CollapseDetector;

use crate::checkpoint::{self, RunState, STATE_VERSION};
use crate::config::TrainConfig;
use crate::error::{Error, Result};
use crate::feed::DeviceLoader;
use crate::learner::Learner;
use crate::meter::Meter;
use crate::metrics::Record;
use crate::plan::Plan;
use crate::probe::{Moment, Probe};
use crate::processes::Processes;
use crate::schedule::{Schedules, StepValues};
use crate::start::Start;
use crate::step::{Skipped, StepOutput, StepRequest, StepResult, step_seed};
use crate::warnings::TrainingWarnings;

/// The inputs of a run, apart from its learner.
pub struct TrainingJob {
    /// The images.
    pub dataset: Arc<Dataset>,
    /// How the images are read.
    pub data: DataConfig,
    /// How the images are cropped.
    pub augment: AugmentConfig,
    /// How patches are masked, if the objective requires it.
    pub masks: MaskConfig,
    /// Length and intervals.
    pub train: TrainConfig,
    /// Step counts.
    pub plan: Plan,
    /// Schedules.
    pub schedules: Schedules,
    /// Seed of the run.
    pub seed: u64,
    /// Folder of checkpoints.
    pub checkpoints: PathBuf,
    /// File to which the teacher's weights are written at the end.
    pub weights: PathBuf,
    /// Settings that affect the mathematics; they are stored in each checkpoint.
    pub settings: BTreeMap<String, serde_json::Value>,
    /// All processes of the run; the first one writes files.
    pub processes: Processes,
}

impl TrainingJob {
    fn writes(&self) -> bool {
        self.processes.rank() == 0
    }
}

/// Receives the reports of a run.
pub trait Observer {
    /// Receives a line of metrics.
    fn record(&mut self, record: &Record) -> Result<()>;
    /// Receives the broken images found in a step.
    fn broken(&mut self, images: &[BrokenImage]) -> Result<()>;
    /// Receives a message for the user.
    fn warning(&mut self, text: &str);
    /// Saves the names of the images of a step that ends the run, because it and those before it
    /// were not finite. Returns the path of the file.
    fn lost(&mut self, step: u64, images: &[String]) -> Result<PathBuf>;
    /// Writes all records to disk, before a checkpoint is written: a run that continues from it does
    /// not repeat the steps before.
    fn sync(&mut self) -> Result<()>;
    /// Receives the path of a checkpoint that was written.
    fn checkpoint(&mut self, path: &Path) -> Result<()>;
    /// Returns whether the run should stop after this step.
    fn stop_requested(&self) -> bool;
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The run completed its last step.
    Finished,
    /// The run stopped early on request, with a checkpoint of its last complete step.
    Stopped,
    /// The run stopped on request before its first step, without a checkpoint.
    NotBegun,
}

/// Trains from `start` to the end of the plan.
///
/// # Errors
/// Returns the first error of data, objective, disk, or probe; checkpoints written before it are
/// kept. Also returns an error if `start` is after the end of the plan.
pub fn run(
    job: &TrainingJob,
    learner: &mut Learner,
    start: Start,
    observer: &mut dyn Observer,
    probes: &mut [Box<dyn Probe>],
) -> Result<Outcome> {
    let (plan, Start { step: start, probes_missing }) = (&job.plan, start);
    plan.check_start(start)?;
    let mut loader = open_loader(job, learner, start)?;
    let mut meter = Meter::new(learner.config().device, learner.config().geometry.batch_size());
    let (mut symptoms, mut skips) = (Symptoms::default(), SkipCounter::default());
    if start > 0 && job.writes() && checkpoint::list(&job.checkpoints)?.is_empty() {
        // The run begins from a checkpoint of another one, which it must not depend on.
        save(job, learner, Start { step: start, probes_missing }, observer)?;
    }
    if (start == 0 || probes_missing)
        && !meter.pause(|| probe(job, learner, start, observer, probes))?
    {
        return Ok(if start == 0 { Outcome::NotBegun } else { Outcome::Stopped });
    }
    for step in start..plan.last_step {
        let done = step + 1;
        let values = job.schedules.at(step);
        let log_metrics = plan.log_due(done);
        let request = StepRequest { values, seed: step_seed(job.seed, step), log_metrics };
        let result = learner.step(&request, || loader.next_views());
        // Broken images are reported first, because they may be why the step failed.
        let broken = report_broken(&mut loader, observer)?;
        let result = match result {
            // A step whose images did not arrive has changed nothing.
            Err(Error::Data(data::Error::Interrupted)) => {
                return interrupted(job, learner, (start, step), observer);
            }
            result => result?,
        };

        warn_of_graph(learner, observer);
        meter.step_done(loader.take_wait_time(), broken);
        let output = skips.handle(result, job, done, &mut meter, observer)?;
        if log_metrics {
            log(job, &values, output, &mut meter, &mut symptoms, observer)?;
        }
        // Probe and log come first, so that a checkpoint's step has all its lines on disk.
        let asked = job.processes.any(observer.stop_requested())? && done < plan.last_step;
        let due = probes.iter().any(|probe| probe.due(plan, done));
        // Probes that a request to stop leaves out are measured first when the run continues.
        let missing =
            due && (asked || !meter.pause(|| probe(job, learner, done, observer, probes))?);
        let stop = asked || missing;
        if stop || plan.checkpoint_due(done) {
            let at = Start { step: done, probes_missing: missing };
            meter.pause(|| save_together(job, learner, at, stop, observer))?;
        }
        if stop {
            return Ok(Outcome::Stopped);
        }
    }
    skips.at_end(observer);
    if job.writes() {
        checkpoint::export_teacher(&job.weights, learner, plan.last_step)?;
    }
    Ok(Outcome::Finished)
}

/// Reports the broken images of a step, and returns their number.
fn report_broken(loader: &mut DeviceLoader, observer: &mut dyn Observer) -> Result<usize> {
    let broken = loader.take_broken();
    if !broken.is_empty() {
        observer.broken(&broken)?;
    }
    Ok(broken.len())
}

/// Warns once if the step could not be recorded as a CUDA graph.
fn warn_of_graph(learner: &mut Learner, observer: &mut dyn Observer) {
    if let Some(problem) = learner.take_graph_problem() {
        observer.warning(&format!(
            "cannot record a CUDA graph, so operations are launched one by one: {problem}"
        ));
    }
}

/// Looks for signs of trouble in the metrics.
#[derive(Default)]
struct Symptoms {
    warnings: TrainingWarnings,
    collapse: CollapseDetector,
}

/// Reports the metrics of a step, as means over all processes, and warnings about them.
fn log(
    job: &TrainingJob,
    values: &StepValues,
    mut output: Option<StepOutput>,
    meter: &mut Meter,
    symptoms: &mut Symptoms,
    observer: &mut dyn Observer,
) -> Result<()> {
    if let Some(output) = &mut output {
        output.average(job.processes.collective())?;
    }
    let broken = job.processes.sum(meter.broken())?;
    let record = meter.record(values.step + 1, &job.plan, values, output.as_ref(), broken)?;
    observer.record(&record)?;
    for text in symptoms.warnings.check(&record, values.progress) {
        observer.warning(&text);
    }
    if let Some(signals) = output.as_ref().and_then(|output| output.signals.as_ref()) {
        let warning = symptoms.collapse.observe(values.step, values.progress, signals);
        warning.iter().for_each(|text| observer.warning(text));
    }
    Ok(())
}

/// Ends a run that was asked to stop while it waited for the images of the step after `completed`
/// steps; it began after `start` of them. The process that writes files does not need the others for
/// this, because all have completed the same steps.
fn interrupted(
    job: &TrainingJob,
    learner: &Learner,
    (start, completed): (u64, u64),
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    observer.warning(
        "asked to stop while waiting for the images of the next step: not waiting any longer",
    );
    if completed == 0 {
        return Ok(Outcome::NotBegun);
    }
    if !job.writes() {
        return Err(data::Error::Interrupted.into());
    }
    // A run that has completed no step is still at the checkpoint that it started from.
    if completed > start && !job.plan.checkpoint_due(completed) {
        save(job, learner, Start { step: completed, probes_missing: false }, observer)?;
    }
    Ok(Outcome::Stopped)
}

/// Opens the loader at the first batch of step `start`.
fn open_loader(job: &TrainingJob, learner: &Learner, start: u64) -> Result<DeviceLoader> {
    let config = LoaderConfig {
        seed: job.seed,
        geometry: learner.config().geometry,
        workers: job.data.workers,
        prefetch: job.data.prefetch,
        max_bad_fraction: job.data.max_bad_fraction,
    };
    let position = Position {
        epoch: start / job.plan.steps_per_epoch,
        step: start % job.plan.steps_per_epoch,
    };
    let learner_config = learner.config();
    let side = job.augment.global_crops_size as usize / learner_config.model.patch_size as usize;
    let masks = learner.needs().patches;
    let masks = masks.then(|| MaskGenerator::new(&job.masks, (side, side))).transpose()?;
    let views = ViewPlan { crops: MultiCrop::new(&job.augment), masks };
    let (device, kind) = (learner_config.device, learner_config.precision.weights());
    let normalizer = learner_config.normalize.on(device, kind)?;
    DeviceLoader::new(Arc::clone(&job.dataset), views, config, position, normalizer)
}

/// Counts consecutive skipped steps.
#[derive(Default)]
struct SkipCounter {
    in_a_row: u64,
}

impl SkipCounter {
    /// Warns if the run ends with skipped steps.
    fn at_end(&self, observer: &mut dyn Observer) {
        if self.in_a_row > 0 {
            observer.warning(&format!(
                "the last {} steps were skipped, so the network has not learned from them and may \
                 be useless: see the warnings above, and lower optim.base_lr if losses were not \
                 finite",
                self.in_a_row
            ));
        }
    }

    /// Returns the output of a completed step. For a skipped step, warns and returns `None`, or an
    /// error if there were too many in a row.
    fn handle(
        &mut self,
        result: StepResult,
        job: &TrainingJob,
        step: u64,
        meter: &mut Meter,
        observer: &mut dyn Observer,
    ) -> Result<Option<StepOutput>> {
        let skipped = match result {
            StepResult::Done(output) => {
                self.in_a_row = 0;
                meter.retried(output.rate_retries);
                return Ok(Some(output));
            }
            StepResult::Skipped(skipped) => skipped,
        };
        meter.skipped();
        if skipped.scaling {
            return Ok(None); // the loss scale of half precision is found this way
        }
        self.in_a_row += 1;
        let Skipped { what, samples, .. } = skipped;
        let (row, most) = (self.in_a_row, job.train.max_skipped_steps);
        if row <= most {
            let text = format!(
                "step {step} was skipped, because {what} ({row} in a row; more than {most} in a \
                 row end the run)"
            );
            observer.warning(&text);
            return Ok(None);
        }
        let names: Vec<String> =
            samples.iter().map(|&index| job.dataset.name(index as usize)).collect();
        let images = observer.lost(step, &names)?;
        Err(Error::NotFinite { step, what, row, images })
    }
}

/// Saves a checkpoint. If the run `stops`, all processes wait for it, because a launcher may kill the
/// first process, which writes, as soon as another one has exited.
fn save_together(
    job: &TrainingJob,
    learner: &Learner,
    at: Start,
    stops: bool,
    observer: &mut dyn Observer,
) -> Result<()> {
    let saved = save(job, learner, at, observer);
    let failed = stops && job.processes.any(saved.is_err())?;
    saved?;
    match failed {
        true => Err(Error::Elsewhere { what: "saving the checkpoint" }),
        false => Ok(()),
    }
}

fn save(
    job: &TrainingJob,
    learner: &Learner,
    at: Start,
    observer: &mut dyn Observer,
) -> Result<()> {
    let done = at.step;
    if !learner.is_finite()? {
        return Err(Error::Lost { step: done });
    }
    if !job.writes() {
        return Ok(());
    }
    let state = RunState {
        version: STATE_VERSION,
        step: done,
        epoch: done / job.plan.steps_per_epoch,
        position: done % job.plan.steps_per_epoch * learner.config().geometry.batch_size() as u64,
        seed: job.seed,
        data_fingerprint: job.dataset.fingerprint(),
        settings: job.settings.clone(),
        probes_missing: at.probes_missing,
    };
    observer.sync()?;
    let path = checkpoint::save(&job.checkpoints, learner, &state, job.train.keep_checkpoints)?;
    observer.checkpoint(&path)
}

/// Measures what is due after `done` steps. Returns `false` if the run was asked to stop before
/// everything was measured.
fn probe(
    job: &TrainingJob,
    learner: &Learner,
    done: u64,
    observer: &mut dyn Observer,
    probes: &mut [Box<dyn Probe>],
) -> Result<bool> {
    let (plan, processes) = (&job.plan, &job.processes);
    let backbone = &learner.teacher.network.backbone;
    let moment = Moment { step: done, plan, backbone, processes };
    let mut record = Record { step: done, epoch: plan.epoch(done), values: Vec::new() };
    for probe in probes.iter_mut().filter(|probe| probe.due(plan, done)) {
        let measured = probe.measure(&moment);
        if !processes.any(measured.is_err())? {
            let measured = measured.unwrap_or_default();
            measured.warnings.iter().for_each(|text| observer.warning(text));
            record.values.extend(measured.values);
        } else if processes.any(observer.stop_requested())? {
            observer.warning(&format!("asked to stop: the probes of step {done} are skipped"));
            return Ok(false);
        } else {
            let source = measured.err().unwrap_or_else(|| "another process failed".into());
            return Err(Error::Probe { name: probe.name().to_owned(), source });
        }
    }
    if job.writes() && !record.values.is_empty() {
        observer.record(&record)?;
    }
    Ok(true)
}
