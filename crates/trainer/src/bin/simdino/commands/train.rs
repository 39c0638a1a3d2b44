//! `simdino train`: from a config to a trained backbone and its report.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use data::dataset::Dataset;
use objectives::{Method, ObjectiveConfig};
use serde_json::Value;
use tch::Device;
use trainer::checkpoint;
use trainer::learner::{Learner, LearnerConfig};
use trainer::plan::Plan;
use trainer::probe::Probe;
use trainer::run::{Job, Outcome};
use trainer::schedule::Schedules;

use crate::config::{self, Loaded, RunConfig};
use crate::console::Console;
use crate::device;
use crate::failure::{Failure, Result, chain};
use crate::train::knn::{KnnOptions, KnnProbe, KnnTable, KnnTask, normalize};
use crate::train::observer::RunObserver;
use crate::train::run_dir::{Resume, RunDir};
use crate::train::signals::StopFlag;
use crate::train::{dry_run, environment, pictures};

/// What `train` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config file
    config: PathBuf,
    /// Values that replace those of the file, such as train.epochs=10
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// never: refuse a folder that holds a run; auto: continue it, or start; or the folder of a
    /// run or checkpoint to continue
    #[arg(long, default_value = "never", value_name = "never|auto|DIR")]
    resume: Resume,
    /// Check everything, print what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let loaded = config::load(&args.config, &args.overrides)?;
    let config = &loaded.config;
    let device = device::resolve(&config.run.device)?;
    if config.run.threads > 0 {
        tch::set_num_threads(i32::try_from(config.run.threads).unwrap_or(i32::MAX));
    }
    let console = Console::new();
    loaded.warnings.iter().for_each(|warning| console.warn(warning));

    let dataset = Arc::new(data::open(&config.data)?);
    let plan = Plan::new(&config.train, config.probe.every_epochs, dataset.len())?;
    ensure_readable(&dataset)?;
    let knn = KnnOptions::of_run(config, device)
        .map(|options| KnnTask::open(options, &config.data))
        .transpose()?;
    if args.dry_run {
        return dry_run::print(config, &dataset, &plan, device);
    }
    train(&Session { args, loaded: &loaded, device, dataset, plan }, knn, console)
}

/// Refuses a set without a readable image before anything is written.
fn ensure_readable(dataset: &Dataset) -> Result<()> {
    let tries = dataset.len().min(64);
    let indices = (0..tries).map(|i| i * (dataset.len() / tries));
    let mut first_error = None;
    for index in indices {
        match dataset.image(index) {
            Ok(_) => return Ok(()),
            Err(error) => first_error = first_error.or(Some((index, error))),
        }
    }
    match first_error {
        Some((index, error)) => Err(Failure::failed(format!(
            "none of the {tries} images tried can be read, the first {}: {}",
            dataset.name(index),
            chain(&error)
        ))),
        None => Ok(()),
    }
}

/// What is known before anything is written.
struct Session<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    device: Device,
    dataset: Arc<Dataset>,
    plan: Plan,
}

fn train(session: &Session, knn: Option<KnnTask>, mut console: Console) -> Result<()> {
    let config = &session.loaded.config;
    let root = run_root(config, &session.args.resume);
    let dir = RunDir::open(&root, &session.args.resume)?;
    let mut learner = Learner::new(learner_config(config, session.device))?;
    let job = job(session, &dir)?;
    let start = resume(session, &dir, &job, &mut learner, &mut console)?;
    console.log_to(&dir.file("log.txt"))?;
    console.note(&format!(
        "{} {} on {}, {:.2} M parameters, {} images, {} steps of {} images, from step {start}",
        if start == 0 { "training" } else { "continuing" },
        root.display(),
        torch_ext::device_name(session.device),
        learner.num_parameters() as f64 / 1e6,
        session.dataset.len(),
        session.plan.last_step,
        config.train.batch_size,
    ));
    write_settings(session, &dir)?;
    let knn = knn.map(Rc::new);
    let mut probes: Vec<Box<dyn Probe>> = Vec::new();
    if let Some(task) = &knn {
        probes.push(Box::new(KnnProbe::new(Rc::clone(task), start == 0)?));
    }
    console.start(start, session.plan.last_step);
    let mut observer = RunObserver::open(&dir, start, console, StopFlag::listen()?)?;
    let outcome = trainer::run::run(&job, &mut learner, start, &mut observer, &mut probes);
    observer.finish()?;
    match outcome? {
        Outcome::Stopped => Err(Failure::stopped(format!(
            "stopped by a signal; the checkpoint is written: continue with --resume auto ({})",
            root.display()
        ))),
        Outcome::Finished => finish(session, &dir, &learner, knn.as_deref(), &mut observer),
    }
}

/// Results, pictures and report of a finished run.
fn finish(
    session: &Session,
    dir: &RunDir,
    learner: &Learner,
    knn: Option<&KnnTask>,
    observer: &mut RunObserver,
) -> Result<()> {
    let config = &session.loaded.config;
    if let Some(task) = knn {
        let untrained = Learner::new(learner_config(config, session.device))?;
        let table = KnnTable {
            knn: task.score(&learner.teacher.network.backbone)?,
            untrained: task.score(&untrained.teacher.network.backbone)?,
            pixels: task.score_pixels()?,
        };
        write_json(&dir.file("results.json"), &table)?;
        observer.console().note(&table.sentence());
    }
    let backbone = &learner.teacher.network.backbone;
    pictures::draw(&dir.file("pictures"), config, &session.dataset, backbone, session.device)?;
    let report = crate::report::write(dir.root())?;
    observer
        .console()
        .note(&format!("weights {}", dir.file("weights/teacher.safetensors").display()));
    observer.console().note(&format!("report {}", report.display()));
    Ok(())
}

/// Folder of the run: that of the run or checkpoint to continue, or `run.dir`/`run.name`.
fn run_root(config: &RunConfig, resume: &Resume) -> PathBuf {
    match resume {
        Resume::From(path) if path.join("state.json").is_file() => {
            path.ancestors().nth(2).map_or_else(|| path.clone(), Path::to_path_buf)
        }
        Resume::From(path) => path.clone(),
        _ => Path::new(&config.run.dir).join(&config.run.name),
    }
}

/// Loads the checkpoint to continue from and returns its step; 0 where there is none.
fn resume(
    session: &Session,
    dir: &RunDir,
    job: &Job,
    learner: &mut Learner,
    console: &mut Console,
) -> Result<u64> {
    let path = match &session.args.resume {
        Resume::Never => return Ok(0),
        Resume::From(path) if path.join("state.json").is_file() => Some(path.clone()),
        _ => {
            let found = checkpoint::newest_intact(&job.checkpoints)?;
            for reason in &found.damaged {
                console.warn(&format!("passed over a damaged checkpoint: {reason}"));
            }
            found.path
        }
    };
    match (path, &session.args.resume) {
        (Some(path), _) => {
            let fingerprint = session.dataset.fingerprint();
            Ok(checkpoint::load(&path, learner, &job.settings, &fingerprint)?.step)
        }
        (None, Resume::From(_)) => Err(Failure::failed(format!(
            "{} holds no checkpoint to continue from",
            dir.root().display()
        ))),
        (None, _) => Ok(0),
    }
}

/// `config.yaml`, `config.resolved.yaml` and `env.json`.
fn write_settings(session: &Session, dir: &RunDir) -> Result<()> {
    let resolved = session.loaded.config.to_yaml()?;
    let environment = environment::describe(session.device, &session.dataset.fingerprint());
    let environment = serde_json::to_vec_pretty(&environment)?;
    checkpoint::write_atomic(&dir.file("config.resolved.yaml"), resolved.as_bytes())?;
    checkpoint::write_atomic(&dir.file("env.json"), &environment)?;
    checkpoint::write_atomic(&dir.file("config.yaml"), session.loaded.text.as_bytes())?;
    Ok(())
}

fn job(session: &Session, dir: &RunDir) -> Result<Job> {
    let config = &session.loaded.config;
    let plan = session.plan;
    Ok(Job {
        dataset: Arc::clone(&session.dataset),
        data: config.data.clone(),
        augment: config.augment.clone(),
        train: config.train.clone(),
        schedules: Schedules::new(
            &config.optim,
            config.train.batch_size,
            plan.steps_per_epoch,
            plan.total_steps,
        ),
        plan,
        seed: config.run.seed,
        checkpoints: dir.file("checkpoints"),
        weights: dir.file("weights/teacher.safetensors"),
        settings: mathematics(config)?,
    })
}

/// What a learner needs of a config.
pub fn learner_config(config: &RunConfig, device: Device) -> LearnerConfig {
    LearnerConfig {
        model: config.model.clone(),
        head: config.head.clone(),
        objective: ObjectiveConfig {
            method: Method::SimDino,
            simdino: config.objective.clone(),
            ..ObjectiveConfig::default()
        },
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

/// Keys that may change when a run is continued: they do not enter the mathematics. The data set
/// is compared by its fingerprint, so it may have moved.
const FREE_KEYS: [&str; 23] = [
    "run.name",
    "run.dir",
    "run.device",
    "run.threads",
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
    "data.synthetic",
    "probe",
];

/// The settings that a continued run must share with its checkpoint, by dotted key.
fn mathematics(config: &RunConfig) -> Result<BTreeMap<String, Value>> {
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

/// Writes a JSON file of the run.
pub fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    Ok(checkpoint::write_atomic(path, &text)?)
}
