//! `simdino train`: trains a backbone from a config, and writes its report.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base::counted;
use data::Dataset;
use eval::{KnnTable, KnnTask};
use simdino::{assemble, images};
use trainer::learner::Learner;
use trainer::plan::Plan;
use trainer::probe::Probe;
use trainer::processes::Processes;
use trainer::run::{Outcome, TrainingJob};
use trainer::start::Start;

use crate::config::{Loaded, RunConfig};
use crate::console::Console;
use crate::failure::{Failure, Result};
use crate::train::begin::{Begun, begin};
use crate::train::continuation::Continuation;
use crate::train::distributed::{self, DistributedContext};
use crate::train::observer::{RunObserver, of_rank};
use crate::train::probe::{self, Opened, Probes};
use crate::train::run_dir::{Resume, RunDir};
use crate::train::signals::StopFlag;
use crate::train::start::{self, run_root};
use crate::train::{dry_run, extend, pictures, settings};

/// Arguments of `simdino train`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Config file, the name of a recipe (`simdino config recipes`), or a folder of images to train
    /// on with the recipe quickstart
    #[arg(value_name = "CONFIG|FOLDER")]
    config: PathBuf,
    /// Values that replace those of the file, such as train.epochs=10
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// never: refuse a folder that holds a run; auto: continue it, or start; or the folder of a
    /// run or checkpoint to continue
    #[arg(long, default_value = "never", value_name = "never|auto|DIR")]
    resume: Resume,
    /// Check the config, the device, and up to 64 of the images, print what would be done, and do
    /// nothing
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: number of processes to plan for, without starting them
    #[arg(long, value_name = "N", requires = "dry_run", value_parser = clap::value_parser!(u16).range(1..))]
    processes: Option<u16>,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the config is invalid, the run cannot be started or continued, or training
/// fails. A run that a signal stops is also reported as an error, with its own exit code.
pub fn run(args: &Args) -> Result<()> {
    let begun = begin(&args.config, &args.overrides, args.processes.map(usize::from))?;
    let loaded = &begun.loaded;
    if args.dry_run {
        return dry_run(args, &begun);
    }
    let distributed = DistributedContext::init(&loaded.config)?;
    run_with(args, &begun, &distributed).inspect_err(|failure| distributed.leave(failure))
}

/// Checks the run in all processes of the launcher, and prints the findings in the first one.
fn dry_run(args: &Args, begun: &Begun) -> Result<()> {
    let (planned, loaded) = (args.processes, &begun.loaded);
    let config = &loaded.config;
    let run = Continuation::of(config, &args.resume)?;
    let launch = distributed::launch(config)?;
    let processes = planned.map_or(launch.size, usize::from);
    if planned.is_some() && launch.size > 1 {
        let started = launch.size;
        return Err(Failure::usage(format!(
            "--processes: cannot be used with a launcher; the dry run plans for the {started} \
             processes that it started"
        )));
    }
    distributed::sharing(config, processes)?;
    let console = if launch.rank == 0 { Console::new() } else { Console::silent() };
    loaded.notes.iter().for_each(|note| console.note(note));
    loaded.warnings.iter().for_each(|warning| console.warn(warning));
    let distributed = DistributedContext::join(config, launch, config.run.timeout_s)?;
    dry_run_with((begun, &run), &distributed, processes, &console)
        .inspect_err(|failure| distributed.leave(failure))
}

fn dry_run_with(
    (begun, run): (&Begun, &Continuation),
    distributed: &DistributedContext,
    processes: usize,
    console: &Console,
) -> Result<()> {
    let config = &begun.loaded.config;
    let links = dry_run::links(&distributed.processes, distributed.device, processes)?;
    let device = distributed.device;
    let (dataset, plan) = open_data(begun, processes)?;
    let opened = probe::open(config, &dataset, device, config.data.workers)?;
    say_notices(console, config, &dataset, &opened);
    if distributed.is_first() {
        dry_run::print((config, run), &dataset, &plan, opened.probes.as_ref(), (device, &links))?;
    }
    // The first process hosts the store that the others use, so it must not exit before them.
    Ok(distributed.processes.collective().barrier()?)
}

/// Runs the training in one process of a run.
fn run_with(args: &Args, begun: &Begun, distributed: &DistributedContext) -> Result<()> {
    let loaded = &begun.loaded;
    let config = &loaded.config;
    set_threads(config);
    let console = if distributed.is_first() { Console::new() } else { Console::silent() };
    loaded.notes.iter().for_each(|note| console.note(note));
    loaded.warnings.iter().for_each(|warning| console.warn(warning));
    let (dataset, plan) = open_data(begun, distributed.launch.size)?;
    let workers = distributed.workers(config.data.workers);
    let opened = probe::open(config, &dataset, distributed.device, Some(workers))?;
    say_notices(&console, config, &dataset, &opened);
    train(&Session { args, loaded, distributed, dataset, plan }, opened, console)
}

/// Opens the images, unless that was already done to choose sizes, and plans the steps.
fn open_data(begun: &Begun, processes: usize) -> Result<(Arc<Dataset>, Plan)> {
    let config = &begun.loaded.config;
    Ok(match &begun.dataset {
        Some(dataset) => (Arc::clone(dataset), images::plan_data(config, dataset, processes)?),
        None => images::open_data(config, processes)?,
    })
}

/// Sets the number of threads for tensor operations on the CPU, if the config states one.
pub(crate) fn set_threads(config: &RunConfig) {
    if let Some(threads) = config.run.threads {
        tch::set_num_threads(i32::try_from(threads).unwrap_or(i32::MAX));
    }
}

/// Prints what was found besides images, such as files that are left out or unreadable labels.
fn say_notices(console: &Console, config: &RunConfig, dataset: &Dataset, opened: &Opened) {
    let images = dataset.notices().sentences_about(&config.data.describe());
    images.iter().chain(&opened.notices).for_each(|text| console.note(text));
}

/// Everything that is known before anything is written.
struct Session<'a> {
    args: &'a Args,
    loaded: &'a Loaded,
    distributed: &'a DistributedContext,
    dataset: Arc<Dataset>,
    plan: Plan,
}

fn train(session: &Session, opened: Opened, mut console: Console) -> Result<()> {
    let Session { args, loaded, distributed, plan, .. } = session;
    let config = &loaded.config;
    let root = run_root(config, &args.resume)?;
    let dir = open_dir(distributed, &root, &args.resume)?;
    let processes = distributed.processes.clone();
    let mut learner = assemble::learner(config, distributed.device, processes)?;
    let job = job(session, &dir)?;
    console.log_to(&dir.file(&of_rank("log.txt", distributed.launch.rank)))?;
    if dir.restarted {
        console.note(&format!(
            "{} contained a run that stopped before its first checkpoint: starting over",
            root.display()
        ));
    }
    let option = (root.as_path(), &args.resume);
    let start =
        start::begin(&job, &config.init, option, &mut learner, &console).map_err(|failure| {
            extend::explain(failure, &dir, config, (&args.config, &args.overrides))
        })?;
    console.note(&headline(session, &root, &learner, start));
    distributed.describe_ranks()?.iter().for_each(|line| console.note(line));
    if distributed.is_first() {
        settings::write(&dir, loaded, distributed, &session.dataset.fingerprint())?;
        forget_table(dir.root(), start.step..plan.last_step)?;
    }
    console.start(start.step, plan.last_step);
    let stop = StopFlag::listen()?;
    session.dataset.stop_on(stop.flag());
    let Opened { probes, knn, .. } = opened;
    knn.iter().for_each(|task| task.stop_on(&stop.flag()));
    let stoppable = |mut probes: Probes| -> Box<dyn Probe> {
        probes.stop_on(&stop.flag());
        Box::new(probes)
    };
    let mut probes: Vec<Box<dyn Probe>> = probes.map(stoppable).into_iter().collect();
    let mut observer =
        RunObserver::open(&dir, start, console, stop.clone(), distributed.launch.rank)?;
    let outcome = trainer::run::run(&job, &mut learner, start, &mut observer, &mut probes);
    // Processes share the final results, so a signal to one of them counts for all.
    let finished = matches!(outcome, Ok(Outcome::Finished));
    let stopped = finished && distributed.processes.any(stop.is_set())?;
    stop.release();
    let flushed = observer.finish().map_err(Failure::from);
    if let Some(failure) = early_end(outcome?, stopped, &root) {
        return Err(failure);
    }
    let steps = start.step..plan.last_step;
    conclude(session, (&dir, steps), &learner, knn.as_ref(), (&mut observer, flushed))
}

/// Measures the final network in all processes, and writes the results of a run in the first one.
/// `steps` are those that were trained in this session.
fn conclude(
    session: &Session,
    (dir, steps): (&RunDir, Range<u64>),
    learner: &Learner,
    knn: Option<&KnnTask>,
    (observer, flushed): (&mut RunObserver, Result<()>),
) -> Result<()> {
    let distributed = session.distributed;
    // `eval knn` may have measured the earlier weights while this training extended a run.
    let forgotten = match distributed.is_first() {
        true => forget_table(dir.root(), steps),
        false => Ok(()),
    };
    // The table comes before these errors, because all processes share it.
    let table = knn.map(|task| final_table(session, learner, task)).transpose()?;
    flushed.and(forgotten)?;
    match distributed.is_first() {
        true => finish(session, dir, learner, table.as_ref(), observer),
        false => Ok(()),
    }
}

/// Measures the final network by k-NN, next to the same network untrained and to pixels.
fn final_table(session: &Session, learner: &Learner, task: &KnnTask) -> Result<KnnTable> {
    let Session { loaded, distributed, .. } = session;
    let untrained = assemble::learner(&loaded.config, distributed.device, Processes::Single)?;
    let (ours, fresh) = (&learner.teacher.network, &untrained.teacher.network);
    let processes = distributed.processes.collective();
    Ok(task.table_shared(&ours.backbone, &fresh.backbone, processes)?)
}

/// Returns how a signal ended the run; `None` if it has completed all steps. `is_stopped` says
/// whether a signal came after the last step.
fn early_end(outcome: Outcome, is_stopped: bool, root: &Path) -> Option<Failure> {
    match outcome {
        Outcome::Stopped => Some(stopped("after writing a checkpoint", root)),
        Outcome::NotBegun => Some(Failure::stopped(format!(
            "stopped by a signal before the first step, so there is nothing to continue: start \
             again ({})",
            root.display()
        ))),
        Outcome::Finished if is_stopped => {
            Some(stopped("after the last step, before the final results", root))
        }
        Outcome::Finished => None,
    }
}

fn stopped(when: &str, run: &Path) -> Failure {
    let run = run.display();
    Failure::stopped(format!("stopped by a signal {when}; continue with --resume auto ({run})"))
}

/// Opens the folder of the run. The first process creates it, and the others wait for that.
fn open_dir(distributed: &DistributedContext, root: &Path, resume: &Resume) -> Result<RunDir> {
    let dir = if distributed.is_first() { Some(RunDir::open(root, resume)?) } else { None };
    distributed.processes.collective().barrier()?;
    dir.map_or_else(|| RunDir::of_others(root), Ok)
}

/// Removes the final k-NN table of a run that has steps left: it is not about the final network.
fn forget_table(run: &Path, steps: Range<u64>) -> Result<()> {
    if !steps.is_empty() && eval::results::Results::read(run)?.has_table() {
        eval::results::update(run, |results| {
            results.remove_table();
            Ok(())
        })?;
    }
    Ok(())
}

fn headline(session: &Session, root: &Path, learner: &Learner, start: Start) -> String {
    let start = start.step;
    let Session { loaded, distributed, dataset, plan, .. } = session;
    let device = match distributed.launch.size {
        1 => torch_ext::device_name(distributed.device),
        size => format!("{size} processes"),
    };
    if start == plan.last_step {
        return format!(
            "{} has completed its {start} steps: only its results are written again",
            root.display()
        );
    }
    format!(
        "{} {} with {} on {device}, {:.2} M parameters, {}, {} of {}, from step {start}",
        if start == 0 { "training" } else { "continuing" },
        root.display(),
        loaded.config.method.name(),
        learner.num_parameters() as f64 / 1e6,
        counted(dataset.len(), "image", "images"),
        counted(plan.last_step, "step", "steps"),
        counted(loaded.config.train.batch_size, "image", "images"),
    )
}

/// Writes the results, pictures, and report of a finished run.
fn finish(
    session: &Session,
    dir: &RunDir,
    learner: &Learner,
    table: Option<&KnnTable>,
    observer: &mut RunObserver,
) -> Result<()> {
    let config = &session.loaded.config;
    if let Some(table) = table {
        eval::results::update(dir.root(), |results| results.set_table(table))?;
        observer.console().note(&table.sentence());
    }
    let backbone = &learner.teacher.network.backbone;
    let (folder, device) = (dir.file("pictures"), session.distributed.device);
    if let Err(failure) = pictures::draw(&folder, config, &session.dataset, backbone, device) {
        // A run is complete without pictures.
        let why = failure.lines().join("; ");
        observer.console().note(&format!("warning: the report has no pictures: {why}"));
    }
    let report = crate::commands::report::write(dir.root())?;
    observer
        .console()
        .note(&format!("weights {}", dir.file("weights/teacher.safetensors").display()));
    observer.console().note(&format!("report {}", report.display()));
    Ok(())
}

fn job(session: &Session, dir: &RunDir) -> Result<TrainingJob> {
    let distributed = session.distributed;
    let dataset = Arc::clone(&session.dataset);
    let config = &session.loaded.config;
    let mut job =
        assemble::job(config, dataset, session.plan, dir.root(), distributed.processes.clone())?;
    job.data.workers = Some(distributed.workers(config.data.workers));
    Ok(job)
}
