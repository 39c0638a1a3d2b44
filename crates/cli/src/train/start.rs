//! The start of a run: its folder, and the checkpoint to resume from.

use std::path::{Path, PathBuf};

use model::ModelConfig;
use model::weights::{ImportPolicy, TensorFile, infer, normalization};
use trainer::checkpoint;
use trainer::config::InitConfig;
use trainer::learner::Learner;
use trainer::processes::Processes;
use trainer::run::TrainingJob;
use trainer::start::Start;

use super::misfit;
use super::run_dir::{Resume, holds_run};
use crate::config::RunConfig;
use crate::console::Console;
use crate::failure::{Failure, Result};

/// Folder of the run: that of the run or checkpoint to continue, or `run.dir`/`run.name`. The latter
/// is also that of a checkpoint that is not in the folder `checkpoints` of a run, such as a copy.
///
/// # Errors
/// What is to be continued is neither a run nor a checkpoint: nothing is written there.
pub fn run_root(config: &RunConfig, resume: &Resume) -> Result<PathBuf> {
    match resume {
        Resume::From(path) if is_checkpoint(path) => {
            run_of(path).map_or_else(|| folder_of_new(config), Ok)
        }
        Resume::From(path) if path.join("checkpoints").is_dir() => Ok(path.clone()),
        Resume::From(path) => Err(nothing_to_continue(path)),
        _ => Ok(config.run.folder()),
    }
}

/// The folder of a run that begins with a checkpoint from elsewhere: no other run may be there.
fn folder_of_new(config: &RunConfig) -> Result<PathBuf> {
    let folder = config.run.folder();
    if holds_run(&folder) {
        return Err(Failure::usage(format!(
            "{} already holds a run, and the checkpoint is not one of it: choose another run.name, or \
             continue the run with --resume auto",
            folder.display()
        )));
    }
    Ok(folder)
}

fn nothing_to_continue(path: &Path) -> Failure {
    let shown = path.display();
    Failure::failed(match path.exists() {
        true => format!("{shown} holds no checkpoint to continue from"),
        false => format!(
            "{shown} does not exist: name a run, or a checkpoint in the folder checkpoints of a run"
        ),
    })
}

/// The run that a checkpoint belongs to.
fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let folder = |path: &Path| {
        let all = path.parent().filter(|all| all.file_name() == Some("checkpoints".as_ref()))?;
        all.parent().filter(|run| run.as_os_str() != "").map(Path::to_path_buf)
    };
    // As it was typed, if that says it, because messages name the run.
    folder(checkpoint).or_else(|| folder(&checkpoint.canonicalize().ok()?))
}

fn is_checkpoint(path: &Path) -> bool {
    path.join("state.json").is_file()
}

/// Loads the checkpoint to continue from, in every process the one that the first has found, and
/// returns where it continues. Where there is none the run begins at step 0, with the weights of `init.from` or
/// with fresh ones.
///
/// # Errors
/// No checkpoint where one was asked for; one that does not fit; a process that cannot read it;
/// weights to start from that do not fit.
pub fn begin(
    job: &TrainingJob,
    init: &InitConfig,
    (root, option): (&Path, &Resume),
    learner: &mut Learner,
    console: &Console,
) -> Result<Start> {
    let own = if job.processes.rank() == 0 { find(job, root, option, console)? } else { None };
    let Some(path) = agreed(&job.processes, own)? else {
        weights(init, learner, console)?;
        return Ok(Start::default());
    };
    if !is_checkpoint(&path) {
        return Err(Failure::failed(format!(
            "process {} does not see {}: run.dir must be on a disk that all processes share",
            job.processes.rank(),
            path.display()
        )));
    }
    let state = checkpoint::load(&path, learner, &job.settings, &job.dataset.fingerprint())?;
    // Before anything of the run is moved or written.
    job.plan.check_start(state.step)?;
    if job.processes.rank() == 0
        && let Some(aside) = checkpoint::set_aside_after(&job.checkpoints, state.step)?
    {
        console.note(&format!(
            "the run goes back to step {}: its later checkpoints are now in {}",
            state.step,
            aside.display()
        ));
    }
    Ok(state.start())
}

/// The weights that a run starts from, said in the log's first lines.
///
/// # Errors
/// Weights that do not fit, or a process that does not answer.
pub fn weights(init: &InitConfig, learner: &mut Learner, console: &Console) -> Result<()> {
    let Some(from) = &init.from else {
        console.note("starting from fresh weights");
        return Ok(learner.share_weights()?);
    };
    let path = simdino::weights::find(Path::new(from), init.network)?;
    checkpoint::verify_file(&path)?;
    let file = TensorFile::open(&path)?;
    let policy =
        ImportPolicy { role: init.network, min_matched: init.min_matched, ..Default::default() };
    let model = infer(&file, &policy.choose(&file)?)?.model;
    same_function(&path, &model, &learner.config().model)?;
    let ours = learner.config().model.clone();
    let report = learner
        .start_from(&file, &policy, init.head)
        .map_err(|error| misfit::explain(error, init, &model, &ours))?;
    console.note(&format!("starting from {report}"));
    let ours = &learner.config().normalize;
    if let Some(theirs) = normalization(&file, model.in_channels)?.filter(|theirs| theirs != ours) {
        console.warn(&format!(
            "these weights expect images of mean {:?} and std {:?}, augment.mean and augment.std are \
             {:?} and {:?}",
            theirs.mean, theirs.std, ours.mean, ours.std
        ));
    }
    Ok(())
}

/// Fails where weights were made for another function than the run's model computes with them.
fn same_function(path: &Path, theirs: &ModelConfig, ours: &ModelConfig) -> Result<()> {
    // Other widths and depths are named with the tensors that do not fit.
    if theirs.arch != ours.arch {
        return Ok(());
    }
    // Epsilons of 1e-12 to 1e-5 are all far below the variances that they are added to.
    let eps = (theirs.norm_eps - ours.norm_eps).abs() > 1e-5;
    let (key, needed) = if theirs.heads() != ours.heads() {
        ("num_heads", theirs.heads().to_string())
    } else if eps {
        ("norm_eps", theirs.norm_eps.to_string())
    } else if theirs.qk_norm && !ours.qk_norm {
        ("qk_norm", "true".to_owned())
    } else {
        return Ok(());
    };
    Err(Failure::failed(format!(
        "init.from: {} was made for another model: set model.{key}={needed}",
        path.display()
    )))
}

/// The checkpoint to continue from.
fn find(
    job: &TrainingJob,
    root: &Path,
    option: &Resume,
    console: &Console,
) -> Result<Option<PathBuf>> {
    match option {
        Resume::Never => return Ok(None),
        Resume::From(path) if is_checkpoint(path) => return Ok(Some(path.clone())),
        _ => {}
    }
    let found = checkpoint::newest_intact(&job.checkpoints)?;
    for reason in &found.damaged {
        console.warn(&format!("skipped a damaged checkpoint: {reason}"));
    }
    if found.path.is_none() && matches!(option, Resume::From(_)) {
        return Err(nothing_to_continue(root));
    }
    Ok(found.path)
}

/// The path that the first process has, in all of them.
fn agreed(processes: &Processes, own: Option<PathBuf>) -> Result<Option<PathBuf>> {
    if processes.size() == 1 {
        return Ok(own);
    }
    let path = match own {
        Some(path) => std::path::absolute(path)?.to_string_lossy().into_owned(),
        None => String::new(),
    };
    let path = processes.collective().broadcast_bytes(path.as_bytes(), 0)?;
    let path = String::from_utf8_lossy(&path).into_owned();
    Ok((!path.is_empty()).then(|| PathBuf::from(path)))
}
