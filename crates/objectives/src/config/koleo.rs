//! Options of the KoLeo regularizer.

use serde::{Deserialize, Serialize};

use super::{Problem, negative};

/// KoLeo, which pushes nearest neighbors apart, for SimDINOv2 and DINOv2. Section `koleo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct KoleoConfig {
    /// Weight of KoLeo, which pushes neighbors apart; 0.1 in DINOv2, 0 in SimDINOv2.
    pub loss_weight: f64,
    /// Groups that the global batch is split into, in which KoLeo looks for neighbors. The reference's
    /// groups are its GPUs: 32 at batch 2048, so 64 images per group.
    pub groups: usize,
}

impl Default for KoleoConfig {
    fn default() -> Self {
        Self { loss_weight: 0.0, groups: 8 }
    }
}

impl KoleoConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = negative(&[("loss_weight", Some(self.loss_weight))]);
        if self.groups == 0 {
            problems.push(("groups", "must be at least 1 (got 0)".into()));
        }
        problems
    }
}
