//! Recipes for linear segmentation.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::segmentation::features::Layers;

/// A published recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// DINOv3's configuration for ADE20K: dropout, batch norm, and a linear layer on the last block.
    Dinov3,
    /// iBOT's configuration: a linear layer on four blocks, with the augmentations of
    /// mmsegmentation.
    Ibot,
    /// DINOv2's configuration: batch norm and a linear layer on the last block.
    Dinov2,
    /// DINOv2's multi-scale configuration: the same on the last four blocks, tested at several
    /// scales and mirrored.
    Dinov2Ms,
}

impl Recipe {
    /// All recipes, with their names in commands.
    pub const ALL: [(&str, Self); 4] = [
        ("dinov3", Self::Dinov3),
        ("ibot", Self::Ibot),
        ("dinov2", Self::Dinov2),
        ("dinov2-ms", Self::Dinov2Ms),
    ];
}

/// How the learning rate decays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine, from the peak to 0.
    Cosine,
    /// A line, from the peak to 0.
    Linear,
}

/// What is averaged where test windows overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Averaged {
    /// Probabilities.
    Probabilities,
    /// Logits.
    Logits,
}

/// Settings of training and testing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LinearConfig {
    /// The recipe that the other values come from.
    pub recipe: Recipe,
    /// Blocks whose patch tokens are used.
    pub layers: Layers,
    /// Probability with which a channel is dropped in training.
    pub dropout: f64,
    /// Whether features pass through batch norm. It sees the whole batch, like batch norm
    /// synchronized over processes.
    pub batch_norm: bool,
    /// Peak learning rate of AdamW (betas 0.9 and 0.999).
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// How the learning rate decays over all iterations.
    pub decay: Decay,
    /// Number of iterations.
    pub iterations: u64,
    /// Images per iteration.
    pub batch: usize,
    /// Number of warm-up iterations, in which the decayed learning rate is also multiplied by a
    /// factor that grows linearly from 1e-6 to 1.
    pub warmup: u64,
    /// Side of the square that the network sees, in pixels.
    pub crop: u32,
    /// Distance between test windows, in pixels.
    pub stride: u32,
    /// Length of the shorter side of test images after resizing, in pixels. Training images are
    /// resized to this times a random factor from 0.5 to 2, then cropped.
    pub short_side: u32,
    /// Maximum length of the longer side, times the same factor; `None` = unlimited.
    pub long_side: Option<u32>,
    /// Maximum share of a class in a training crop. A crop that reaches it, or shows fewer than two
    /// classes, is drawn again, up to ten times; `None` = unlimited.
    pub max_class_share: Option<f64>,
    /// Whether brightness, contrast, saturation, and hue of training crops are varied.
    pub photometric: bool,
    /// What is averaged where windows overlap.
    pub averaged: Averaged,
    /// Scales at which test images are seen; probabilities are averaged over them.
    pub test_scales: Vec<f64>,
    /// Whether test images are also segmented mirrored.
    pub test_flip: bool,
    /// Whether features of the training images are computed only once, without augmentation, for
    /// short runs.
    pub cached: bool,
    /// Maximum memory for cached features, in GB.
    pub cache_gb: f64,
    /// Seed of the head's weights, of crops, and of dropout.
    pub seed: u64,
}

/// Crop size of all recipes, in pixels.
const CROP: u32 = 512;
/// Window stride of all recipes, in pixels.
const STRIDE: u32 = 341;

impl LinearConfig {
    /// Returns these settings with fixed values for those that do not affect the trained head.
    pub(super) fn of_training(&self) -> Self {
        let recipe = Self::of(self.recipe);
        Self {
            // Cached features are those of windows.
            stride: if self.cached { self.stride } else { recipe.stride },
            averaged: recipe.averaged,
            test_scales: recipe.test_scales,
            test_flip: recipe.test_flip,
            cache_gb: recipe.cache_gb,
            ..self.clone()
        }
    }

    /// Returns the published settings of a recipe.
    ///
    /// # Source
    /// DINOv3's config-ade20k-linear-training.yaml; iBOT's configs for semantic segmentation with a
    /// linear head; DINOv2's segmentation configs, whose schedule is taken from other code for its
    /// features.
    pub fn of(recipe: Recipe) -> Self {
        let dinov3 = Self {
            recipe,
            layers: Layers::Last(1),
            dropout: 0.1,
            batch_norm: true,
            lr: 1e-3,
            weight_decay: 1e-3,
            decay: Decay::Cosine,
            iterations: 40_000,
            batch: 16,
            warmup: 1500,
            crop: CROP,
            stride: STRIDE,
            short_side: CROP,
            long_side: None,
            max_class_share: None,
            photometric: false,
            averaged: Averaged::Probabilities,
            test_scales: vec![1.0],
            test_flip: false,
            cached: false,
            cache_gb: 8.0,
            seed: 0,
        };
        dinov3.adapted()
    }

    /// Replaces the values in which the recipe of `self` differs from DINOv3's.
    fn adapted(self) -> Self {
        let mmsegmentation = Self {
            dropout: 0.0,
            decay: Decay::Linear,
            long_side: Some(4 * CROP),
            max_class_share: Some(0.75),
            photometric: true,
            averaged: Averaged::Logits,
            ..self.clone()
        };
        match self.recipe {
            Recipe::Dinov3 => self,
            Recipe::Ibot => Self {
                layers: Layers::FourSpread,
                batch_norm: false,
                lr: 8e-4,
                weight_decay: 0.05,
                iterations: 160_000,
                ..mmsegmentation
            },
            Recipe::Dinov2 => Self { weight_decay: 1e-4, ..mmsegmentation },
            Recipe::Dinov2Ms => Self {
                layers: Layers::Last(4),
                weight_decay: 1e-4,
                test_scales: vec![1.0, 1.32, 1.73, 2.28, 3.0],
                test_flip: true,
                ..mmsegmentation
            },
        }
    }

    /// Sets the number of iterations, and scales the warm-up in proportion.
    #[must_use]
    pub fn with_iterations(self, iterations: u64) -> Self {
        let warmup = (u128::from(self.warmup) * u128::from(iterations)
            / u128::from(self.iterations.max(1))) as u64;
        Self { iterations, warmup, ..self }
    }

    /// Sets the crop size, and scales image sides and the stride in proportion.
    #[must_use]
    pub fn with_crop(self, crop: u32) -> Self {
        let scaled =
            |value: u32| (u64::from(value) * u64::from(crop) / u64::from(self.crop.max(1))) as u32;
        Self {
            crop,
            stride: scaled(self.stride).max(1),
            short_side: scaled(self.short_side).max(1),
            long_side: self.long_side.map(scaled),
            ..self
        }
    }

    /// Returns the learning rate of iteration `t`, counted from 0.
    pub fn lr_at(&self, t: u64) -> f64 {
        const FIRST: f64 = 1e-6;
        let share = t as f64 / self.iterations.max(1) as f64;
        let decay = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * share).cos()),
            Decay::Linear => 1.0 - share,
        };
        let warmup = match t < self.warmup {
            true => 1.0 - (1.0 - t as f64 / self.warmup as f64) * (1.0 - FIRST),
            false => 1.0,
        };
        self.lr * decay * warmup
    }

    /// Checks all values.
    pub(super) fn check(&self) -> Result<()> {
        let setting = |key, problem: String| Err(Error::Setting { key, problem });
        if self.iterations == 0 || self.batch == 0 {
            return setting("iterations and batch", "must be at least 1".to_owned());
        }
        if self.stride == 0 || self.stride > self.crop {
            let (stride, crop) = (self.stride, self.crop);
            return setting(
                "stride",
                format!("must be from 1 to the crop size of {crop} (got {stride})"),
            );
        }
        if self.lr.is_nan() || self.lr <= 0.0 {
            return setting("lr", format!("must be greater than 0 (got {})", self.lr));
        }
        if self.test_scales.is_empty()
            || self.test_scales.iter().any(|&s| !s.is_finite() || s <= 0.0)
        {
            return setting(
                "test_scales",
                format!("needs numbers greater than 0 (got {:?})", self.test_scales),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_settings_of_the_training_identify_a_head() {
        let mut cached = LinearConfig::of(Recipe::Dinov3);
        cached.cached = true;
        for config in [LinearConfig::of(Recipe::Dinov3), cached] {
            let mut tested = config.clone();
            tested.test_flip = !config.test_flip;
            (tested.test_scales, tested.cache_gb) = (vec![0.5, 1.0], 1.0);
            assert_eq!(tested.of_training(), config.of_training());
            tested.stride = 16;
            assert_eq!(tested.of_training() == config.of_training(), !config.cached);
            tested.lr = 0.5;
            assert_ne!(tested.of_training(), config.of_training());
        }
    }

    #[test]
    fn learning_rates_rise_and_fall() {
        let config = LinearConfig::of(Recipe::Dinov3);
        assert!((config.lr_at(0) - 1e-9).abs() < 1e-12);
        // In the middle of the warm-up, the rate is half of the cosine.
        let cosine = |t: f64| 0.5e-3 * (1.0 + (std::f64::consts::PI * t / 40_000.0).cos());
        assert!((config.lr_at(750) - 0.5 * cosine(750.0)).abs() < 1e-9);
        assert!((config.lr_at(20_000) - 0.5e-3).abs() < 1e-12);
        assert!(config.lr_at(39_999) < 1e-10);
        let linear = LinearConfig::of(Recipe::Dinov2);
        assert!((linear.lr_at(30_000) - 0.25e-3).abs() < 1e-12);
    }

    #[test]
    fn shorter_and_smaller_runs_keep_their_shape() {
        let config = LinearConfig::of(Recipe::Ibot).with_iterations(1600).with_crop(256);
        assert_eq!((config.iterations, config.warmup), (1600, 15));
        assert_eq!(
            (config.crop, config.stride, config.short_side, config.long_side),
            (256, 170, 256, Some(1024))
        );
        assert!(config.check().is_ok());
        assert!(LinearConfig { stride: 0, ..config }.check().is_err());
    }
}
