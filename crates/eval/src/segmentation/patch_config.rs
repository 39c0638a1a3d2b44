//! Settings of the classifiers of patches.

use serde::Serialize;

use super::evaluate::MaskSize;
use crate::error::{Error, Result};
use crate::nearest::Similarity;

/// Settings of both classifiers.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PatchConfig {
    /// Side of the square to which images are resized, in pixels; rounded to whole patches. 448 in CAPI.
    pub side: u32,
    /// Candidates for the number of neighbors; 1, 3, 10, and 30 in CAPI.
    pub k: Vec<usize>,
    /// Candidates for the similarity; both in CAPI.
    pub similarities: Vec<Similarity>,
    /// Candidates for `C` of the regression; 8 values from 1e-6 to 1e5 in CAPI.
    pub c: Vec<f64>,
    /// Maximum number of iterations of the regression for each candidate.
    pub max_iterations: usize,
    /// An iteration of the regression that lowers the loss by a smaller fraction than this is the last.
    pub tolerance: f64,
    /// Fraction of the training images that choose among the candidates; a tenth in CAPI.
    pub held_out: f64,
    /// Most patches that are kept; if there are more, each image keeps an equal number, at random.
    pub memory: usize,
    /// Size of the masks that are compared. In CAPI, these are squares of `side`.
    pub mask: MaskSize,
    /// Seed of the choice of patches and of the held-out images.
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
    /// Whether there is more than one candidate for something.
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
            return setting("c", format!("needs numbers above 0 (got {:?})", config.c));
        }
        if !(0.0..1.0).contains(&config.held_out) || config.held_out == 0.0 {
            return setting(
                "held_out",
                format!("must be above 0 and below 1 (got {})", config.held_out),
            );
        }
        Ok(())
    }
}
