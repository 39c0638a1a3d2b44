//! Options of the terms that second-generation objectives add to that of class tokens.

use serde::{Deserialize, Serialize};

use super::{Problem, negative};

/// Masked patches and KoLeo, for SimDINOv2 and DINOv2. Section `terms`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TermsConfig {
    /// Weight of the loss of masked patches; 1 in SimDINOv2 and DINOv2, 0 turns masking off.
    pub patch_weight: f64,
    /// Weight of KoLeo, which pushes neighbours apart; 0.1 in DINOv2, 0 in SimDINOv2.
    pub koleo_weight: f64,
    /// Groups that the global batch is split into, in which KoLeo looks for neighbours. The reference's
    /// groups are its GPUs: 32 at batch 2048, so 64 images a group.
    pub koleo_groups: usize,
}

impl Default for TermsConfig {
    fn default() -> Self {
        Self { patch_weight: 1.0, koleo_weight: 0.0, koleo_groups: 8 }
    }
}

impl TermsConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let weights =
            [("patch_weight", Some(self.patch_weight)), ("koleo_weight", Some(self.koleo_weight))];
        let mut problems = negative(&weights);
        if self.koleo_groups == 0 {
            problems.push(("koleo_groups", "must be at least 1 (got 0)".into()));
        }
        problems
    }
}
