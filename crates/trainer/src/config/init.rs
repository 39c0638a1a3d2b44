//! The initial state of a network.

use model::weights::Role;
use serde::{Deserialize, Serialize};

use super::Problem;
use super::check::Check;

/// Weights to start from. Section `init`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// File, exported folder or run of simdino, DINO, DINOv2, timm or Hugging Face; empty = fresh weights.
    /// Positions, patch size and channels are made to fit the `model` section.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub from: String,
    /// Which network of a training checkpoint.
    pub network: Role,
    /// Take the projection head too, where the file has one of this shape; else it is fresh.
    pub head: bool,
    /// Share of the backbone's tensors that must be found.
    pub min_matched: f64,
    /// Steps in which the backbone stays as it is, so that fresh heads do not spoil it.
    pub freeze_backbone_steps: u64,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self {
            from: String::new(),
            network: Role::Teacher,
            head: false,
            min_matched: 0.9,
            freeze_backbone_steps: 0,
        }
    }
}

impl InitConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.share("min_matched", self.min_matched);
        check.0
    }
}
