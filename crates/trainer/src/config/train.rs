//! Length, intervals, and precision of a run.

use serde::{Deserialize, Serialize};
use tch::Kind;

use super::Problem;
use super::check::Check;

/// Precision of the networks; the objective always runs in fp32 or better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// Matrix products in bfloat16 under autocast, weights in fp32.
    Bf16,
    /// Matrix products in half precision under autocast, weights in fp32; the loss is scaled so that
    /// small gradients survive, and a step whose gradients overflow is skipped.
    Fp16,
    /// Double precision, loss included: for comparisons, not for training.
    Fp64,
}

/// Length and pace of a run. Section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Images in one optimizer step, over all processes and accumulation steps.
    pub batch_size: usize,
    /// Passes that a step is split into to save memory; the objective stays the same.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub accumulate: usize,
    /// Passes over the data.
    pub epochs: f64,
    /// Steps to stop after, for a shorter run with the same schedules; 0 = all of them.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub stop_after: u64,
    /// Precision of the networks.
    pub precision: Precision,
    /// Steps between two lines of metrics.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub log_every: u64,
    /// Steps between two checkpoints; 0 = once an epoch.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub checkpoint_every: u64,
    /// Checkpoints kept, newest first.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub keep_checkpoints: usize,
    /// Steps in a row that may be skipped because their loss or gradient is not finite; one more stops
    /// the run.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub max_skipped_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 512,
            accumulate: 1,
            epochs: 100.0,
            stop_after: 0,
            precision: Precision::Fp32,
            log_every: 10,
            checkpoint_every: 0,
            keep_checkpoints: 3,
            max_skipped_steps: 10,
        }
    }
}

impl TrainConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.at_least_one("batch_size", self.batch_size as u64);
        check.at_least_one("accumulate", self.accumulate as u64);
        check.positive("epochs", self.epochs);
        check.at_least_one("log_every", self.log_every);
        check.at_least_one("keep_checkpoints", self.keep_checkpoints as u64);
        check.0
    }
}

impl Precision {
    /// Returns the kind of weights and images.
    pub fn weights(self) -> Kind {
        if self == Self::Fp64 { Kind::Double } else { Kind::Float }
    }

    /// Returns the kind of matrix products if it differs from that of the weights.
    pub fn autocast(self) -> Option<Kind> {
        match self {
            Self::Fp32 | Self::Fp64 => None,
            Self::Bf16 => Some(Kind::BFloat16),
            Self::Fp16 => Some(Kind::Half),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(TrainConfig::default().validate(), []);
        let train = TrainConfig { batch_size: 0, epochs: 0.0, ..Default::default() };
        let keys: Vec<_> = train.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["batch_size", "epochs"]);
    }
}
