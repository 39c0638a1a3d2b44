//! How often something is measured.

use base::check::Check;
use serde::{Deserialize, Serialize};

/// Number of epochs between two measurements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EveryEpochs {
    /// It is not measured.
    Never,
    /// This number.
    #[serde(untagged)]
    Number(f64),
}

/// Checks that the number of epochs, if there is one, is positive.
pub(super) fn check(key: &'static str, check: &mut Check, every: Option<EveryEpochs>) {
    if let Some(EveryEpochs::Number(epochs)) = every {
        check.positive(key, epochs);
    }
}
