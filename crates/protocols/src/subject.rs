//! The network that a protocol measures.

use std::path::PathBuf;

use data::DataConfig;
use data::decode::PixelFormat;
use eval::record::{Record, Weights};
use eval::segmentation::{DenseExtractor, Metered};
use eval::store::{Network, network_fingerprint};
use eval::{FeaturePrecision, Frozen, data_config};
use model::VisionTransformer;
use model::weights::PretrainedBackbone;
use tch::Device;

use crate::error::Result;

/// A network on its device, with all that a record says about it.
pub struct Subject {
    /// The file, checkpoint, or run, as given by the user.
    pub path: PathBuf,
    /// The network.
    pub weights: PretrainedBackbone,
    /// The result of [`network_fingerprint`].
    pub fingerprint: String,
    /// Device of the network.
    pub device: Device,
    /// Precision of the network.
    pub precision: FeaturePrecision,
    /// Folder that keeps the state of the heads of [`Segment`](crate::dense::Segment) and
    /// [`Depth`](crate::Depth), so that an interrupted training continues; `None` = nothing is
    /// kept. [`Linear`](crate::labeled::Linear) uses the folder of its features.
    pub heads: Option<PathBuf>,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Subject {
    /// Creates the subject for opened weights, which are on `device`. No state of heads is kept.
    /// The network runs in bf16 on a GPU and in fp32 on a CPU.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn new(
        path: impl Into<PathBuf>,
        weights: PretrainedBackbone,
        device: Device,
    ) -> Result<Self> {
        let fingerprint = network_fingerprint(&weights)?;
        let precision =
            if device.is_cuda() { FeaturePrecision::Bf16 } else { FeaturePrecision::Fp32 };
        Ok(Self { path: path.into(), weights, fingerprint, device, precision, heads: None })
    }

    /// Returns the config for reading images for this network: its channels and range of values.
    pub fn data_config(&self) -> DataConfig {
        data_config(&self.weights, "")
    }

    /// Returns the pixel format of the network.
    pub fn pixels(&self) -> PixelFormat {
        self.data_config().pixels()
    }

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
    pub(crate) fn metered<'a>(&self, network: &'a dyn DenseExtractor) -> Metered<'a> {
        Metered::new(network, self.weights.backbone.embed_dim())
    }

    /// Returns the network for a feature store.
    pub fn network(&self) -> Network<'_> {
        Network { backbone: &self.weights.backbone, fingerprint: &self.fingerprint }
    }

    /// Names this network, or the same network untrained, by its fingerprint.
    pub(crate) fn name_of(&self, fingerprint: &str) -> String {
        let untrained = if fingerprint == self.fingerprint { "" } else { ", untrained" };
        format!("{}{untrained}", self.path.display())
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
#[derive(Debug)]
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
