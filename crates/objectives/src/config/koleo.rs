//! Options of the KoLeo regularizer.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

/// KoLeo, which pushes nearest neighbors apart, for SimDINOv2 and DINOv2. Section `koleo`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct KoleoConfig {
    /// Weight of the regularizer. 0.1 in DINOv2, 0 in SimDINOv2.
    pub loss_weight: f64,
    /// Number of groups that the batch is split into; neighbors are found within a group. In the
    /// reference, each GPU is a group: 32 at a batch size of 2048, with 64 images each.
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
        let mut check = Check::default();
        check.not_negative("loss_weight", self.loss_weight);
        check.at_least("groups", self.groups, 1);
        check.problems()
    }
}
