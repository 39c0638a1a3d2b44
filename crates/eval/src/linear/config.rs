//! Settings of linear probes.

use serde::{Deserialize, Serialize};
use tch::Device;

use crate::error::{Error, Result};
use crate::record::Record;
use crate::store::ImageFeature;

/// The features that a head sees, concatenated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeadInput {
    /// Number of last blocks whose class tokens are used.
    pub blocks: u8,
    /// Whether the mean of the last block's patch tokens is appended.
    pub mean_patch: bool,
}

/// How heads are updated.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadOptimizer {
    /// Stochastic gradient descent with momentum, without weight decay.
    Sgd {
        /// Momentum; 0.9 in DINO and DINOv2.
        momentum: f64,
    },
    /// AdamW with betas of 0.9 and 0.999.
    AdamW {
        /// Decoupled weight decay.
        weight_decay: f64,
    },
}

/// The factor by which learning rates are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateScale {
    /// The batch size divided by 256, as in DINO and DINOv2.
    Batch,
    /// One.
    One,
}

/// The length of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EpochLength {
    /// One pass through the training images, whose last batch may be smaller.
    Pass,
    /// This number of full batches, from an endless sequence of passes.
    Steps(usize),
}

/// When the scores of heads are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reported {
    /// After each epoch, of which the best one is reported, as in DINO.
    BestEpoch,
    /// After the last step, as in DINOv2.
    Last,
}

/// Settings of a linear probe, which has one head for each combination of [`Self::inputs`] and
/// [`Self::rates`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LinearConfig {
    /// The features of heads.
    pub inputs: Vec<HeadInput>,
    /// Learning rates of heads, before scaling.
    pub rates: Vec<f64>,
    /// The factor by which learning rates are multiplied.
    pub rate_scale: RateScale,
    /// How heads are updated.
    pub optimizer: HeadOptimizer,
    /// Images per step.
    pub batch: usize,
    /// Number of epochs.
    pub epochs: usize,
    /// The length of an epoch.
    pub epoch_length: EpochLength,
    /// Whether the cosine schedule of the learning rate, which ends at 0, changes per step, as in
    /// DINOv2, or per epoch, as in DINO.
    pub rate_per_step: bool,
    /// When the scores of heads are measured.
    pub reported: Reported,
    /// Whether a tenth of the training images is held out to choose the head and the epoch, instead
    /// of the test images.
    pub holdout: bool,
    /// Seed of the initial weights, of the order of the images, and of the choice of held-out
    /// images.
    pub seed: u64,
    /// Device of the heads.
    #[serde(skip)]
    pub device: Device,
}

/// The 13 learning rates of DINOv2.
const DINOV2_RATES: [f64; 13] =
    [1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1];

/// The 8 learning rates of SimDINOv2.
const SIMDINOV2_RATES: [f64; 8] = [2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2];

impl LinearConfig {
    /// Returns DINO's settings: one head on the class tokens of the last four blocks, 100 epochs of
    /// SGD. DINO's numbers for ViT-B use `blocks: 1` with `mean_patch`.
    ///
    /// # Source
    /// DINO's eval_linear.py at 7c446df. It interleaves the class token and the mean of the
    /// patches, but the order of features does not matter to a linear head.
    pub fn dino() -> Self {
        Self {
            inputs: vec![HeadInput { blocks: 4, mean_patch: false }],
            rates: vec![1e-3],
            rate_scale: RateScale::Batch,
            optimizer: HeadOptimizer::Sgd { momentum: 0.9 },
            batch: 128,
            epochs: 100,
            epoch_length: EpochLength::Pass,
            rate_per_step: false,
            reported: Reported::BestEpoch,
            holdout: false,
            seed: 0,
            device: Device::Cpu,
        }
    }

    /// Returns DINOv2's settings: 52 heads, 10 epochs of 1,250 steps of SGD.
    ///
    /// # Source
    /// DINOv2's eval/linear.py at b8931f7.
    pub fn dinov2() -> Self {
        let inputs = [(1, false), (1, true), (4, false), (4, true)];
        let inputs = inputs.map(|(blocks, mean_patch)| HeadInput { blocks, mean_patch });
        Self {
            inputs: inputs.to_vec(),
            rates: DINOV2_RATES.to_vec(),
            epochs: 10,
            epoch_length: EpochLength::Steps(1250),
            rate_per_step: true,
            reported: Reported::Last,
            ..Self::dino()
        }
    }

    /// Returns SimDINOv2's settings: 16 heads, and otherwise DINOv2's settings.
    ///
    /// # Source
    /// simdinov2/eval/linear.py of SimDINO's repository.
    pub fn simdinov2() -> Self {
        let inputs = [1, 2].map(|blocks| HeadInput { blocks, mean_patch: true });
        Self { inputs: inputs.to_vec(), rates: SIMDINOV2_RATES.to_vec(), ..Self::dinov2() }
    }

    /// Returns settings for one head on the class token, trained by AdamW in batches of 512,
    /// following a textbook's description of SimDINO's probe.
    pub fn adamw() -> Self {
        Self {
            inputs: vec![HeadInput { blocks: 1, mean_patch: false }],
            rates: vec![2e-4],
            rate_scale: RateScale::One,
            optimizer: HeadOptimizer::AdamW { weight_decay: 0.01 },
            batch: 512,
            rate_per_step: true,
            reported: Reported::Last,
            ..Self::dino()
        }
    }

    /// Returns the number of heads.
    pub fn heads(&self) -> usize {
        self.inputs.len() * self.rates.len()
    }

    /// Returns the features that the heads need together: class tokens from the earliest block to
    /// the last, then the mean of the patches.
    pub fn features(&self) -> Vec<ImageFeature> {
        let blocks = self.inputs.iter().map(|input| input.blocks).max().unwrap_or(1);
        let mean = self.inputs.iter().any(|input| input.mean_patch);
        let tokens = (1..=blocks).rev().map(ImageFeature::Cls);
        tokens.chain(mean.then_some(ImageFeature::MeanPatch)).collect()
    }

    /// Adds the settings to a record.
    pub fn describe(&self, record: &mut Record) {
        if let Ok(serde_json::Value::Object(settings)) = serde_json::to_value(self) {
            record.settings.extend(settings);
        }
    }

    /// Checks the values.
    pub(super) fn check(&self) -> Result<()> {
        let setting = |key, problem: String| Err(Error::Setting { key, problem });
        if self.inputs.is_empty() || self.inputs.iter().any(|input| input.blocks == 0) {
            return setting("blocks", "needs numbers of at least 1".to_owned());
        }
        if self.rates.is_empty() || self.rates.iter().any(|rate| !rate.is_finite() || *rate <= 0.0)
        {
            return setting(
                "rates",
                format!("needs numbers greater than 0 (got {:?})", self.rates),
            );
        }
        for (key, value) in [("batch", self.batch), ("epochs", self.epochs)] {
            if value == 0 {
                return setting(key, "must be at least 1 (got 0)".to_owned());
            }
        }
        if self.epoch_length == EpochLength::Steps(0) {
            return setting("epoch_length", "must be at least 1 (got 0)".to_owned());
        }
        Ok(())
    }
}
