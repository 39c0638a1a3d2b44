//! The start of a run: its folder, and the checkpoint or the weights that it begins from.

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

/// Returns the folder of the run: the folder of the run or checkpoint to continue, or
/// `run.dir`/`run.name`. The latter is also used for a checkpoint outside of a run, such as a copy.
///
/// # Errors
/// Returns an error if what is to be continued is neither a run nor a checkpoint, or if the
/// checkpoint is outside of a run and the folder already holds one. Nothing is written.
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

/// Returns the folder of a run that begins from a checkpoint elsewhere. It must not hold a run.
fn folder_of_new(config: &RunConfig) -> Result<PathBuf> {
    let folder = config.run.folder();
    if holds_run(&folder) {
        return Err(Failure::usage(format!(
            "{} already holds a run that the checkpoint does not belong to: choose another \
             run.name, or continue the run with --resume auto",
            folder.display()
        )));
    }
    Ok(folder)
}

pub(super) fn nothing_to_continue(path: &Path) -> Failure {
    let shown = path.display();
    Failure::failed(match path.exists() {
        true => format!("{shown} holds no checkpoint to continue from"),
        false => format!(
            "{shown} does not exist: give a run, or a checkpoint in the folder checkpoints of a \
             run"
        ),
    })
}

/// Returns the folder of the run that a checkpoint belongs to, if it is in one.
fn run_of(checkpoint: &Path) -> Option<PathBuf> {
    let folder = |path: &Path| {
        let all = path.parent().filter(|all| all.file_name() == Some("checkpoints".as_ref()))?;
        all.parent().filter(|run| run.as_os_str() != "").map(Path::to_path_buf)
    };
    // The path as typed comes first, because messages name the run.
    folder(checkpoint).or_else(|| folder(&checkpoint.canonicalize().ok()?))
}

fn is_checkpoint(path: &Path) -> bool {
    path.join("state.json").is_file()
}

/// Loads the checkpoint to continue from and returns the step that the run continues at. All
/// processes load the checkpoint that the first one finds. Without a checkpoint, the run begins at
/// step 0 with the weights of `init.from` or with random ones.
///
/// # Errors
/// Returns an error if a requested checkpoint does not exist, does not fit the run, or cannot be
/// read by a process, or if the weights of `init.from` do not fit.
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
            "process {} cannot see {}: run.dir must be on a disk that all processes share",
            job.processes.rank(),
            path.display()
        )));
    }
    let state = checkpoint::load(&path, learner, &job.settings, &job.dataset.fingerprint())?;
    // This check must precede anything that moves or writes files of the run.
    job.plan.check_start(state.step)?;
    if job.processes.rank() == 0
        && let Some(aside) = checkpoint::set_aside_after(&job.checkpoints, state.step)?
    {
        console.note(&format!(
            "the run goes back to step {}: later checkpoints were moved to {}",
            state.step,
            aside.display()
        ));
    }
    Ok(state.start())
}

/// Initializes the learner with the weights of `init.from`, or shares the random weights of the
/// first process, and logs which of the two it did.
///
/// # Errors
/// Returns an error if the weights do not fit or a process does not respond.
pub fn weights(init: &InitConfig, learner: &mut Learner, console: &Console) -> Result<()> {
    let Some(from) = &init.from else {
        console.note("starting from random weights");
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
            "these weights expect images normalized with mean {:?} and std {:?}, but augment.mean \
             and augment.std are {:?} and {:?}",
            theirs.mean, theirs.std, ours.mean, ours.std
        ));
    }
    Ok(())
}

/// Checks that the run's model computes the same function with the weights as the model that they
/// were trained in. Shapes alone do not show a difference in heads or norms.
fn same_function(path: &Path, theirs: &ModelConfig, ours: &ModelConfig) -> Result<()> {
    // A different architecture is reported later, with the tensors that do not fit.
    if theirs.arch != ours.arch {
        return Ok(());
    }
    // Epsilons from 1e-12 to 1e-5 are interchangeable: all are far below the variances that they
    // are added to.
    let eps = (theirs.norm_eps - ours.norm_eps).abs() > 1e-5;
    let (key, needed) = if theirs.heads() != ours.heads() {
        ("num_heads", theirs.heads().to_string())
    } else if eps {
        ("norm_eps", theirs.norm_eps.to_string())
    } else if theirs.qk_norm && !ours.qk_norm {
        ("qk_norm", "true".to_owned())
    } else if let (Some(scale), None) = (theirs.layer_scale, ours.layer_scale) {
        // Exports to Hugging Face have a LayerScale of 1 if the network has none.
        ("layer_scale", scale.to_string())
    } else {
        return Ok(());
    };
    Err(Failure::failed(format!(
        "init.from: {} was trained with a different model: set model.{key}={needed}",
        path.display()
    )))
}

/// Finds the checkpoint to continue from, skipping damaged ones with a warning.
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

/// Returns the path of the first process, in all processes.
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
