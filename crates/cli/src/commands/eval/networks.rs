//! The networks of an evaluation: one or several, each measured alone.

use std::path::{Path, PathBuf};

use eval::record::{Record, Weights};
use eval::store::{Network, network_fingerprint};
use eval::{FeaturePrecision, Frozen};
use model::VisionTransformer;
use model::weights::PretrainedBackbone;
use simdino::device::{self, DeviceSpec};
use tch::Device;

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
    /// What the keys of the network in the file begin with, where there are several
    #[arg(long)]
    prefix: Option<String>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
    /// Precision of the networks, fp32 or bf16; bf16 is several times as fast on a GPU
    #[arg(long, default_value_t = FeaturePrecision::Fp32)]
    pub precision: FeaturePrecision,
    /// Folder for results.json and results.csv; by default the run that the weights belong to, and
    /// none for other weights
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// One JSON object a network on the last lines instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A network, and where it computes.
pub struct Opened {
    /// As it was given.
    pub path: PathBuf,
    pub weights: PretrainedBackbone,
    pub fingerprint: String,
    pub device: Device,
    precision: FeaturePrecision,
}

impl Networks {
    /// The paths of all networks; the checkpoints of a run by step.
    ///
    /// # Errors
    /// A run has no checkpoints.
    pub fn paths(&self) -> Result<Vec<PathBuf>> {
        let mut paths = self.weights.clone();
        for run in &self.checkpoints {
            let found = trainer::checkpoint::list(&run.join("checkpoints"))?;
            if found.is_empty() {
                return Err(Failure::failed(format!("{}: no checkpoints there", run.display())));
            }
            paths.extend(found.into_iter().map(|(_, path)| path));
        }
        Ok(paths)
    }

    /// Opens one of them.
    ///
    /// # Errors
    /// The device or the weights cannot be used.
    pub fn open(&self, path: &Path) -> Result<Opened> {
        let device = device::resolve(self.device)?;
        let weights = weights::open(path, self.prefix.as_deref(), device)?;
        let fingerprint = network_fingerprint(&weights)?;
        let (path, precision) = (path.to_owned(), self.precision);
        Ok(Opened { path, weights, fingerprint, device, precision })
    }

    /// Where results of the network at `path` are kept.
    pub fn folder_of_results(&self, path: &Path) -> Option<PathBuf> {
        self.out.clone().or_else(|| run_of(path))
    }
}

impl Opened {
    /// A record of this network without scores and without the size of its images.
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

    /// Its weights, or those of `backbone`, as a network that sees images in the same way.
    pub fn frozen<'a>(&'a self, backbone: &'a VisionTransformer) -> Frozen<'a> {
        let (normalize, device) = (&self.weights.normalize, self.device);
        Frozen { network: backbone, normalize, device, precision: self.precision }
    }

    /// The network, for a store of features.
    pub fn network(&self) -> Network<'_> {
        Network { backbone: &self.weights.backbone, fingerprint: &self.fingerprint }
    }

    /// The same network untrained.
    ///
    /// # Errors
    /// As [`PretrainedBackbone::untrained`].
    pub fn untrained(&self) -> Result<Untrained> {
        let backbone = self.weights.untrained()?;
        // Its values come from the seed in the file and from the generator of the device.
        let fingerprint = format!("untrained-{:?}-{}", self.device, self.fingerprint);
        Ok(Untrained { backbone, fingerprint })
    }
}

/// A network without training, and what identifies it.
pub struct Untrained {
    backbone: VisionTransformer,
    fingerprint: String,
}

impl Untrained {
    /// The network, for a store of features.
    pub fn network(&self) -> Network<'_> {
        Network { backbone: &self.backbone, fingerprint: &self.fingerprint }
    }
}

/// Creates a file for a moment in a folder, or in the one that it would be created in.
///
/// # Errors
/// That is not possible.
pub fn writable(folder: &Path) -> std::io::Result<()> {
    let there = folder.ancestors().find(|folder| folder.exists());
    tempfile::tempfile_in(there.unwrap_or(Path::new("."))).map(drop)
}
