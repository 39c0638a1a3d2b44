//! Settings of the patch classifiers.

use augment::rng::{Purpose, Rng};
use serde::Serialize;

use super::evaluate::MaskSize;
use super::features::whole_patches;
use crate::error::{Error, Result};
use crate::nearest::Similarity;

/// The [`Purpose::Choice`] number for held-out images.
const HELD_OUT: u32 = 703;

/// Settings of the k-NN and logistic regression classifiers of patches.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PatchConfig {
    /// Side in pixels of the square to which images are resized, rounded to whole patches; 448 in
    /// CAPI.
    pub side: u32,
    /// Candidates for the number of neighbors; 1, 3, 10, and 30 in CAPI.
    pub k: Vec<usize>,
    /// Candidates for the similarity; both in CAPI.
    pub similarities: Vec<Similarity>,
    /// Candidates for `C` of the regression; 8 values from 1e-6 to 1e5 in CAPI.
    pub c: Vec<f64>,
    /// Maximum number of iterations of the regression for each candidate.
    pub max_iterations: usize,
    /// The regression stops at an iteration that lowers the loss by a smaller fraction than this.
    pub tolerance: f64,
    /// Fraction of the training images that is held out to choose among the candidates; a tenth in
    /// CAPI.
    pub held_out: f64,
    /// Maximum number of patches kept in memory. If there are more, each image keeps the same
    /// number of randomly chosen ones.
    pub memory: usize,
    /// Size at which masks are compared. CAPI compares squares of `side`.
    pub mask: MaskSize,
    /// Seed for choosing patches and held-out images.
    pub seed: u64,
}

impl Default for PatchConfig {
    fn default() -> Self {
        Self {
            side: 448,
            k: vec![1, 3, 10, 30],
            similarities: vec![Similarity::Cosine, Similarity::Euclidean],
            c: (0..8).map(|i| 10f64.powf(-6.0 + 11.0 * f64::from(i) / 7.0)).collect(),
            max_iterations: 1000,
            tolerance: 1e-9,
            held_out: 0.1,
            memory: 1 << 20,
            mask: MaskSize::Square(448),
            seed: 0,
        }
    }
}

impl PatchConfig {
    /// Returns whether any setting has more than one candidate.
    pub(super) fn chooses(&self) -> bool {
        self.k.len() * self.similarities.len() > 1 || self.c.len() > 1
    }

    /// Checks all values.
    pub(super) fn check(&self) -> Result<()> {
        let config = self;
        let setting = |key, problem: String| Err(Error::Setting { key, problem });
        if config.k.is_empty() || config.k.contains(&0) {
            return setting("k", format!("needs numbers of at least 1 (got {:?})", config.k));
        }
        if config.similarities.is_empty() {
            return setting("similarities", "needs at least one".to_owned());
        }
        if config.c.is_empty() || config.c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
            return setting("c", format!("needs numbers greater than 0 (got {:?})", config.c));
        }
        if !(0.0..1.0).contains(&config.held_out) || config.held_out == 0.0 {
            return setting(
                "held_out",
                format!("must be greater than 0 and less than 1 (got {})", config.held_out),
            );
        }
        Ok(())
    }

    /// Returns the settings with the side rounded to whole patches of `patch` pixels, and square
    /// masks of this side rounded likewise.
    pub fn in_whole_patches(&self, patch: u32) -> Self {
        let side = whole_patches(self.side, patch);
        let mask = match self.mask {
            MaskSize::Square(mask) if mask == self.side => MaskSize::Square(side),
            mask => mask,
        };
        Self { side, mask, ..self.clone() }
    }

    /// Returns the maximum number of patches that each training image keeps.
    pub(super) fn per_image(&self, images: usize) -> Result<usize> {
        let setting = |key, problem: String| Err(Error::Setting { key, problem });
        if images < 2 {
            let problem = "one is too few: some are held out to choose settings".to_owned();
            return setting("training images", problem);
        }
        match self.memory / images {
            0 => setting(
                "memory",
                format!(
                    "must fit at least one patch of each of the {images} training images (got {})",
                    self.memory
                ),
            ),
            most => Ok(most),
        }
    }

    /// Returns the number of held-out images: at least one, but not all if there are several.
    pub(super) fn held_out_count(&self, images: usize) -> usize {
        let count = (images as f64 * self.held_out).round() as usize;
        count.clamp(1, images.saturating_sub(1).max(1))
    }

    /// Returns the images in random order, so that the last ones are a random subset.
    pub(super) fn held_out_last(&self, indices: &[usize]) -> Vec<usize> {
        let mut rng = Rng::new(self.seed, 0, 0, Purpose::Choice(HELD_OUT));
        rng.permutation(indices.len()).into_iter().map(|place| indices[place]).collect()
    }
}
