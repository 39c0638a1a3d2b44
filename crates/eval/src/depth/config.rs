//! Settings of training and testing.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::segmentation::Layers;

/// The blocks whose patch tokens and class token are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthLayers {
    /// The last block.
    Last,
    /// Four blocks, at the ends of the quarters of the network.
    Four,
}

impl DepthLayers {
    /// Returns the corresponding [`Layers`].
    pub fn layers(self) -> Layers {
        match self {
            Self::Last => Layers::Last(1),
            Self::Four => Layers::FourQuarters,
        }
    }
}

/// The part of test images whose pixels are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scored {
    /// The whole image.
    All,
    /// Rows 45 to 470 and columns 41 to 600 of images of 640x480, Eigen's crop of NYU.
    Nyu,
    /// Garg's crop of KITTI, given as fractions of the sides.
    Garg,
}

/// Settings of training and testing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DepthConfig {
    /// The blocks whose tokens are used.
    pub layers: DepthLayers,
    /// Number of depth bins, of which a prediction is a weighted mean; 256 in DINOv2.
    pub bins: i64,
    /// Smallest predicted depth, in meters. Only pixels that are deeper are scored.
    pub min_depth: f64,
    /// Largest predicted depth, in meters; 10 for NYU, 80 for KITTI. Deeper pixels are neither
    /// learned nor scored.
    pub max_depth: f64,
    /// Number of iterations; 38,400 in DINOv2.
    pub iterations: u64,
    /// Images per iteration; 16 in DINOv2.
    pub batch: usize,
    /// Number of warm-up iterations, in which the learning rate is also multiplied by a factor that
    /// grows linearly; a third of all by default.
    pub warmup: u64,
    /// Peak learning rate of AdamW, which decays along half a cosine.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Maximum gradient norm.
    pub clip: f64,
    /// Number of initial iterations whose loss has no variance term.
    pub loss_warmup: u64,
    /// Weight of the gradient loss.
    pub gradient_weight: f64,
    /// Height and width of training crops, in pixels.
    pub crop: [u32; 2],
    /// Whether the predictions for a test image and its mirror image are averaged.
    pub test_flip: bool,
    /// The part of test images that is scored.
    pub scored: Scored,
    /// Seed of the head and of crops.
    pub seed: u64,
}

impl DepthConfig {
    /// Returns these settings with fixed values for those that do not affect the trained head.
    pub(super) fn of_training(&self) -> Self {
        let default = Self::default();
        Self { test_flip: default.test_flip, scored: default.scored, ..self.clone() }
    }
}

impl Default for DepthConfig {
    /// Returns DINOv2's settings for NYU, with the last block.
    ///
    /// # Source
    /// Configs of the Monocular Depth Estimation Toolbox, on which DINOv2's are based, as repeated
    /// by other code for DINOv2's features; the head is in DINOv2's dinov2/hub/depth.
    fn default() -> Self {
        Self {
            layers: DepthLayers::Last,
            bins: 256,
            min_depth: 1e-3,
            max_depth: 10.0,
            iterations: 38_400,
            batch: 16,
            warmup: 12_800,
            lr: 5e-3,
            weight_decay: 0.01,
            clip: 35.0,
            loss_warmup: 100,
            gradient_weight: 0.5,
            crop: [416, 544],
            test_flip: true,
            scored: Scored::All,
            seed: 0,
        }
    }
}

impl DepthConfig {
    /// Sets the number of iterations, and scales both warm-ups in proportion.
    #[must_use]
    pub fn with_iterations(self, iterations: u64) -> Self {
        let scaled = |part: u64| {
            (u128::from(part) * u128::from(iterations) / u128::from(self.iterations.max(1))) as u64
        };
        Self {
            iterations,
            warmup: scaled(self.warmup),
            loss_warmup: scaled(self.loss_warmup),
            ..self
        }
    }

    /// Returns the learning rate of iteration `t`, counted from 0.
    pub fn lr_at(&self, t: u64) -> f64 {
        const FIRST: f64 = 1e-3;
        const LEAST: f64 = 1e-8;
        let share = t as f64 / self.iterations.max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
        let lr = self.lr * (LEAST + (1.0 - LEAST) * cosine);
        match t < self.warmup {
            true => lr * (1.0 - (1.0 - t as f64 / self.warmup as f64) * (1.0 - FIRST)),
            false => lr,
        }
    }

    /// Checks all values.
    pub(super) fn check(&self) -> Result<()> {
        let setting = |key, problem: String| Err(Error::Setting { key, problem });
        if self.iterations == 0 || self.batch == 0 || self.crop.contains(&0) || self.bins < 2 {
            return setting(
                "iterations, batch, and crop",
                "must be at least 1, and bins at least 2".to_owned(),
            );
        }
        if !self.min_depth.is_finite()
            || self.min_depth <= 0.0
            || !self.max_depth.is_finite()
            || self.max_depth <= self.min_depth
        {
            let (least, most) = (self.min_depth, self.max_depth);
            return setting(
                "max_depth",
                format!("must be greater than the smallest depth of {least} (got {most})"),
            );
        }
        if self.lr.is_nan() || self.lr <= 0.0 {
            return setting("lr", format!("must be greater than 0 (got {})", self.lr));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learning_rates_rise_and_fall() {
        let config = DepthConfig::default();
        assert!((config.lr_at(0) - 5e-6).abs() < 1e-12);
        let cosine = |t: f64| 2.5e-3 * (1.0 + (std::f64::consts::PI * t / 38_400.0).cos());
        assert!((config.lr_at(6400) - 0.5005 * cosine(6400.0)).abs() < 1e-8);
        assert!((config.lr_at(19_200) - 2.5e-3).abs() < 1e-8);
        let short = config.with_iterations(384);
        assert_eq!((short.warmup, short.loss_warmup), (128, 1));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let config = DepthConfig::default();
        assert!(config.check().is_ok());
        assert!(DepthConfig { max_depth: 0.0, ..config.clone() }.check().is_err());
        assert!(DepthConfig { max_depth: f64::NAN, ..config.clone() }.check().is_err());
        assert!(DepthConfig { crop: [0, 5], ..config }.check().is_err());
    }
}
