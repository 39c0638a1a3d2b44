//! How values warm up.

use serde::{Deserialize, Serialize};

/// Which step of a linear warm-up is the first with the full value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum WarmupForm {
    /// The last step of the warm-up (DINO, SimDINO, DINOv2).
    #[default]
    Inclusive,
    /// The step after the warm-up (SimDINOv2, and the DINOv2 that it is compared with).
    Exclusive,
}

impl WarmupForm {
    /// Steps from the first value to the full one, of a warm-up of `steps`; at least 1.
    pub fn span(self, steps: u64) -> u64 {
        match self {
            Self::Inclusive => steps.saturating_sub(1).max(1),
            Self::Exclusive => steps.max(1),
        }
    }
}
