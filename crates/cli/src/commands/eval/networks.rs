//! The networks of an evaluation, which are measured one after the other.

use std::path::{Path, PathBuf};

use eval::record::{Record, Weights};
use eval::segmentation::{DenseExtractor, Metered};
use eval::store::{Network, network_fingerprint};
use eval::{FeaturePrecision, Frozen};
use model::VisionTransformer;
use model::weights::PretrainedBackbone;
use simdino::device::{self, DeviceSpec};
use tch::Device;
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

/// An opened network on its device.
pub struct Opened {
    /// The path as it was given.
    pub path: PathBuf,
    pub weights: PretrainedBackbone,
    pub fingerprint: String,
    pub device: Device,
    pub precision: FeaturePrecision,
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
    pub fn open(&self, path: &Path) -> Result<Opened> {
        let device = match launch()? {
            Some(launch) => device::of_process(self.device, &launch)?,
            None => device::resolve(self.device)?,
        };
        let weights = weights::open(path, self.prefix.as_deref(), device)?;
        let fingerprint = network_fingerprint(&weights)?;
        let usual = if device.is_cuda() { FeaturePrecision::Bf16 } else { FeaturePrecision::Fp32 };
        let (path, precision) = (path.to_owned(), self.precision.unwrap_or(usual));
        Ok(Opened { path, weights, fingerprint, device, precision })
    }

    /// Opens all networks, one after the other. If there are several, those that cannot be opened are
    /// left out; the evaluation itself names them.
    ///
    /// # Errors
    /// Returns an error if the only network cannot be opened.
    pub fn each(&self, visit: &mut dyn FnMut(&Path, &Opened) -> Result<()>) -> Result<()> {
        let paths = self.paths()?;
        for path in &paths {
            match self.open(path) {
                Ok(opened) => visit(path, &opened)?,
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

impl Opened {
    /// Creates a record of this network without scores and without the size of the images.
    pub fn record(&self, protocol: &str) -> Record {
        let weights = Weights {
            path: self.path.display().to_string(),
            fingerprint: self.fingerprint.clone(),
            step: self.weights.step,
        };
        let mut record = Record::new(protocol, weights);
        record.precision = self.precision.to_string();
        record
    }

    /// Returns `network` as a frozen network with the normalization, device, and precision of this
    /// one. `network` is the network itself or its untrained counterpart.
    pub fn frozen<'a, N: ?Sized>(&'a self, network: &'a N) -> Frozen<'a, N> {
        let (normalize, device) = (&self.weights.normalize, self.device);
        Frozen { network, normalize, device, precision: self.precision }
    }

    /// Returns a network of this width that also measures the spread of its patch features.
    pub fn metered<'a>(&self, network: &'a dyn DenseExtractor) -> Metered<'a> {
        Metered::new(network, self.weights.backbone.embed_dim())
    }

    /// Returns the network for a feature store.
    pub fn network(&self) -> Network<'_> {
        Network { backbone: &self.weights.backbone, fingerprint: &self.fingerprint }
    }

    /// Creates the same network untrained.
    ///
    /// # Errors
    /// Same as for [`PretrainedBackbone::untrained`].
    pub fn untrained(&self) -> Result<Untrained> {
        let backbone = self.weights.untrained()?;
        // The random weights depend on the seed in the file and on the generator of the device.
        let device = if self.device.is_cuda() { "cuda" } else { "cpu" };
        let fingerprint = format!("untrained-{device}-{}", self.fingerprint);
        Ok(Untrained { backbone, fingerprint })
    }
}

/// An untrained network with its fingerprint.
pub struct Untrained {
    backbone: VisionTransformer,
    fingerprint: String,
}

impl Untrained {
    /// Returns the network for a feature store.
    pub fn network(&self) -> Network<'_> {
        Network { backbone: &self.backbone, fingerprint: &self.fingerprint }
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
