//! Options of iBOT's masked patch loss.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

/// The loss of masked patches, for SimDINOv2 and DINOv2. Section `ibot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct IbotConfig {
    /// Weight of the loss. 1 in SimDINOv2 and DINOv2; 0 disables masking.
    pub loss_weight: f64,
}

impl Default for IbotConfig {
    fn default() -> Self {
        Self { loss_weight: 1.0 }
    }
}

impl IbotConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.not_negative("loss_weight", self.loss_weight);
        check.problems()
    }
}
