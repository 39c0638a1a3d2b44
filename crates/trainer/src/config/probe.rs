//! Evaluation during a run.

use serde::{Deserialize, Serialize};

use super::Problem;
use super::check::Check;

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
        check.positive("every_epochs", self.every_epochs.unwrap_or(1.0));
        for (key, most) in [("max_train", self.max_train), ("max_test", self.max_test)] {
            check.at_least_one(key, most.unwrap_or(1) as u64);
        }
        check.at_least_one("resize", self.resize.unwrap_or(1).into());
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
