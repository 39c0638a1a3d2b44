//! The networks of an evaluation, which are measured one after the other.

use std::path::{Path, PathBuf};

use eval::FeaturePrecision;
use protocols::Subject;
use simdino::device::{self, DeviceSpec};
use torch_ext::{Launch, Launcher};

use crate::failure::{Failure, Result};
use crate::weights::{self, run_of};

/// Options of all evaluations.
#[derive(Debug, Clone, clap::Args)]
pub struct Networks {
    /// A weight file, a checkpoint, or a run; may be repeated, for one table of several networks
    #[arg(long, value_name = "PATH", required_unless_present = "checkpoints")]
    weights: Vec<PathBuf>,
    /// A run, all of whose checkpoints are measured; may be repeated
    #[arg(long, value_name = "RUN")]
    checkpoints: Vec<PathBuf>,
    /// Prefix of the keys of the network, if the file contains several
    #[arg(long)]
    prefix: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceSpec,
    /// Precision of the networks, fp32 or bf16; by default bf16 on a GPU, where it is several times
    /// as fast, and fp32 on a CPU
    #[arg(long)]
    precision: Option<FeaturePrecision>,
    /// Folder for results.json and results.csv; by default the run that the weights belong to, and
    /// none for other weights
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// One JSON object per network on the last lines instead of a table
    #[arg(long)]
    pub json: bool,
}

impl Networks {
    /// Returns the paths of all networks; the checkpoints of a run are sorted by step.
    ///
    /// # Errors
    /// Returns an error if a run has no checkpoints.
    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.weights.clone();
        for run in &self.checkpoints {
            let found = trainer::checkpoint::list(&run.join("checkpoints"))?;
            if found.is_empty() {
                return Err(Failure::failed(format!("{}: no checkpoints found", run.display())));
            }
            paths.extend(found.into_iter().map(|(_, path)| path));
        }
        Ok(paths)
    }

    /// Opens the network at `path`.
    ///
    /// # Errors
    /// Returns an error if the device or the weights cannot be used.
    pub fn open(&self, path: &Path) -> Result<Subject> {
        let launch = launch()?;
        let device = match &launch {
            Some(launch) => device::of_process(self.device, launch)?,
            None => device::resolve(self.device)?,
        };
        let weights = weights::read(path, self.prefix.as_deref(), device)?;
        if launch.is_none_or(|launch| launch.rank == 0) {
            weights::say_assumed(&weights);
        }
        let mut subject = Subject::new(path, weights, device)?;
        subject.precision = self.precision.unwrap_or(subject.precision);
        subject.heads = self.folder_of_results(path);
        Ok(subject)
    }

    /// Opens all networks, one after the other. If there are several, those that cannot be opened
    /// are left out; the evaluation itself names them.
    ///
    /// # Errors
    /// Returns an error if the only network cannot be opened.
    pub fn each(&self, visit: &mut dyn FnMut(&Subject) -> Result<()>) -> Result<()> {
        let paths = self.paths()?;
        for path in &paths {
            match self.open(path) {
                Ok(subject) => visit(&subject)?,
                Err(failure) if paths.len() == 1 => return Err(failure),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Returns the folder for the results of the network at `path`, if there is one.
    pub fn folder_of_results(&self, path: &Path) -> Option<PathBuf> {
        self.out.clone().or_else(|| run_of(path))
    }
}

/// Returns the processes of torchrun; `None` if there is only one.
///
/// # Errors
/// Returns an error if torchrun's variables contradict each other.
pub fn launch() -> Result<Option<Launch>> {
    // Without this variable of torchrun, those of SLURM would count, but an evaluation in a batch
    // script is a single process, however many tasks the allocation has.
    if std::env::var_os("WORLD_SIZE").is_none() {
        return Ok(None);
    }
    let launch = Launch::from_variables(&std::env::vars().collect())?;
    Ok((launch.size > 1 && launch.launcher == Launcher::Torchrun).then_some(launch))
}

/// Checks that a folder is writable by creating a temporary file in it. If the folder does not
/// exist, checks its nearest existing parent.
///
/// # Errors
/// Returns an error if the file cannot be created.
pub fn writable(folder: &Path) -> std::io::Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists());
    tempfile::tempfile_in(there.unwrap_or(Path::new("."))).map(drop)
}
