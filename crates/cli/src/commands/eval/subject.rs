//! What every evaluation takes: weights, and two sets of labeled images.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use augment::EvalTransform;
use model::weights::PretrainedBackbone;
use simdino::device::{self, DeviceSpec};
use tch::Device;

use crate::failure::Result;
use crate::precision::Precision;
use crate::sizes::Sizes;
use crate::weights;

/// Options of all evaluations.
#[derive(Debug, clap::Args)]
pub struct Subject {
    /// A weight file, a checkpoint, or a run
    #[arg(long, value_name = "PATH")]
    pub weights: PathBuf,
    /// Labeled images to learn from: folder, list, or shards
    #[arg(long, value_name = "PATH")]
    pub train: String,
    /// Labeled images to classify
    #[arg(long, value_name = "PATH")]
    pub test: String,
    #[command(flatten)]
    pub sizes: Sizes,
    /// What the keys of the network in the file begin with, where there are several
    #[arg(long)]
    pub prefix: Option<String>,
    /// Most images used of the first set; all if it is not given
    #[arg(long)]
    pub max_train: Option<NonZeroUsize>,
    /// Most images used of the second set; all if it is not given
    #[arg(long)]
    pub max_test: Option<NonZeroUsize>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    pub device: DeviceSpec,
    /// Precision of the networks; bf16 is several times as fast on a GPU
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    pub precision: Precision,
    /// One JSON object on the last line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// The network of an evaluation, and how it sees images.
pub struct Opened {
    pub weights: PretrainedBackbone,
    pub transform: EvalTransform,
    pub device: Device,
}

impl Subject {
    /// Opens the weights.
    ///
    /// # Errors
    /// The device or the weights cannot be used, or sizes that were typed cannot be.
    pub fn open(&self) -> Result<Opened> {
        let device = device::resolve(self.device)?;
        let weights = weights::open(&self.weights, self.prefix.as_deref(), device)?;
        let transform = self.sizes.transform(&self.weights, &weights.model)?;
        Ok(Opened { weights, transform, device })
    }

    /// Most images of both sets.
    pub fn limits(&self) -> [Option<usize>; 2] {
        [self.max_train, self.max_test].map(|limit| limit.map(NonZeroUsize::get))
    }
}
