//! Evaluation during a run.

use serde::{Deserialize, Serialize};

use super::Problem;
use super::check::Check;

/// The k-NN probe during training. Section `probe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Labeled images whose features vote; empty = no probe.
    pub train_path: String,
    /// Labeled images that are classified.
    pub test_path: String,
    /// Epochs between two probes; the last step always has one. 0 = only there.
    pub every_epochs: f64,
    /// Most images of `train_path` that are used; 0 = all.
    pub max_train: usize,
    /// Most images of `test_path` that are used; 0 = all.
    pub max_test: usize,
    /// Neighbors that vote; 20 in DINO.
    pub k: usize,
    /// Temperature of the votes; 0.07 in DINO.
    pub temperature: f64,
    /// Shorter side, in pixels, that images are resized to before the center crop of
    /// model.image_size; 0 = 8/7 of it, as 256 and 224 in DINO.
    pub resize: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            train_path: String::new(),
            test_path: String::new(),
            every_epochs: 5.0,
            max_train: 5000,
            max_test: 2000,
            k: 20,
            temperature: 0.07,
            resize: 0,
        }
    }
}

impl ProbeConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.not_negative("every_epochs", self.every_epochs);
        check.at_least_one("k", self.k as u64);
        check.positive("temperature", self.temperature);
        check.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(ProbeConfig::default().validate(), []);
        let probe = ProbeConfig { temperature: 0.0, ..Default::default() };
        assert_eq!(
            probe.validate(),
            [("temperature", "must be greater than 0 (got 0)".to_owned())]
        );
    }
}
