//! Evaluation during a run.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};

/// The k-NN probe during training. Section `probe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Labeled images whose features vote. If it is absent, there is no probe.
    pub train_path: Option<String>,
    /// Labeled images that are classified.
    pub test_path: Option<String>,
    /// Number of epochs between two probes. If it is null, only the last step has one; it always
    /// does.
    pub every_epochs: Option<f64>,
    /// Largest number of images of `train_path` that are used, spread evenly over the set. If it is
    /// null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_train: Option<usize>,
    /// Largest number of images of `test_path` that are used, spread evenly over the set. If it is
    /// null, all.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_test: Option<usize>,
    /// Number of neighbors that vote. 20 in DINO.
    pub k: usize,
    /// Temperature of the votes. 0.07 in DINO.
    pub temperature: f64,
    /// Length, in pixels, that the shorter side of images is resized to before the center crop of
    /// `model.image_size`. If it is absent, 8/7 of that size, such as 256 for 224, as in DINO.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub resize: Option<u32>,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            train_path: None,
            test_path: None,
            every_epochs: Some(5.0),
            max_train: Some(5000),
            max_test: Some(2000),
            k: 20,
            temperature: 0.07,
            resize: None,
        }
    }
}

impl ProbeConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.positive("every_epochs", self.every_epochs);
        check.at_least("max_train", self.max_train, 1);
        check.at_least("max_test", self.max_test, 1);
        check.at_least("resize", self.resize, 1);
        check.at_least("k", self.k, 1);
        check.positive("temperature", self.temperature);
        check.problems()
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
