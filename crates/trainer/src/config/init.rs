//! The initial state of a network.

use base::check::{Check, Problem};
use model::weights::Role;
use serde::{Deserialize, Serialize};

/// Weights to start from. Section `init`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct InitConfig {
    /// Weight file, exported folder, or run of simdino, DINO, DINOv2, timm, or Hugging Face. If it
    /// is absent, training starts from random weights. Positional embedding, patch size, and
    /// channels are adapted to the section `model`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub from: Option<String>,
    /// Network to read from a training checkpoint that contains several.
    pub network: Role,
    /// Also read the projection head, if the file has one of the same shape.
    pub head: bool,
    /// Smallest fraction of the backbone's tensors that must be found (0 to 1).
    pub min_matched: f64,
    /// Number of steps at the start in which only the heads are trained, so that random heads do not
    /// spoil the backbone.
    pub freeze_backbone_steps: u64,
}

impl Default for InitConfig {
    fn default() -> Self {
        Self {
            from: None,
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
        check.fraction("min_matched", self.min_matched);
        check.problems()
    }
}
