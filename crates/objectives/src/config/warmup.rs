//! Warm-up of values.

use serde::{Deserialize, Serialize};

/// The first step of a linear warm-up that has the full value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WarmupForm {
    /// The last step of the warm-up (DINO, SimDINO, DINOv2).
    #[default]
    Inclusive,
    /// The step after the warm-up (SimDINOv2, and the DINOv2 that it is compared with).
    Exclusive,
}

impl WarmupForm {
    /// Returns the number of steps from the first value to the full one in a warm-up of `steps`;
    /// at least 1.
    pub fn span(self, steps: u64) -> u64 {
        match self {
            Self::Inclusive => steps.saturating_sub(1).max(1),
            Self::Exclusive => steps.max(1),
        }
    }
}
