//! Length, intervals, and precision of a run.

use base::check::{Check, Problem};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind};

/// Precision of the networks; the objective always runs in fp32 or better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// Single precision with TF32, on NVIDIA GPUs from Ampere on: matrix products of the networks
    /// round their inputs to a 10-bit mantissa and accumulate in fp32. Older GPUs compute in fp32.
    Tf32,
    /// Automatic mixed precision: matrix products in bfloat16, weights in fp32.
    Bf16,
    /// Automatic mixed precision: matrix products in half precision, weights in fp32. The loss is
    /// scaled so that small gradients do not vanish, and steps whose gradients overflow are skipped.
    Fp16,
    /// Double precision, including the loss; for comparisons rather than training.
    Fp64,
}

/// Length and pace of a run. Section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Number of images per optimizer step, over all processes and accumulation steps.
    pub batch_size: usize,
    /// Gradient accumulation: number of passes that a step is split into to save memory. The
    /// objective stays the same, except with `dino.centering: sinkhorn_knopp`, `head.use_bn`, or
    /// `model.drop_path_form: batch`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub accumulate: usize,
    /// Length of training, in epochs.
    pub epochs: f64,
    /// Number of steps after which the run stops, with the schedules of the whole length. If it is
    /// absent, the run trains for all `epochs`.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub stop_after: Option<u64>,
    /// Precision of the networks. The objective is always computed in fp32 or better.
    pub precision: Precision,
    /// Record the backbones of a step as a CUDA graph and launch it as a whole, which is faster for small
    /// networks. Without effect on a CPU, for several processes, with `train.accumulate` above 1, and
    /// with `model.checkpoint_blocks`. The results are the same.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub cuda_graph: bool,
    /// Number of steps between two lines of metrics.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub log_every: u64,
    /// Number of steps between two checkpoints. If it is absent, there is one after each epoch.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub checkpoint_every: Option<u64>,
    /// Number of newest checkpoints that are kept.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub keep_checkpoints: usize,
    /// Largest number of consecutive steps that are skipped because their loss or gradient is not
    /// finite; one more stops the run.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub max_skipped_steps: u64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 512,
            accumulate: 1,
            epochs: 100.0,
            stop_after: None,
            precision: Precision::Fp32,
            cuda_graph: true,
            log_every: 10,
            checkpoint_every: None,
            keep_checkpoints: 3,
            max_skipped_steps: 10,
        }
    }
}

impl TrainConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.at_least("batch_size", self.batch_size, 1);
        check.at_least("accumulate", self.accumulate, 1);
        check.positive("epochs", self.epochs);
        check.at_least("stop_after", self.stop_after, 1);
        check.at_least("checkpoint_every", self.checkpoint_every, 1);
        check.at_least("log_every", self.log_every, 1);
        check.at_least("keep_checkpoints", self.keep_checkpoints, 1);
        check.problems()
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
            Self::Fp32 | Self::Tf32 | Self::Fp64 => None,
            Self::Bf16 => Some(Kind::BFloat16),
            Self::Fp16 => Some(Kind::Half),
        }
    }

    /// Runs `f`, a forward pass of the networks on `device`, in this precision.
    ///
    /// # Errors
    /// Returns an error if the device does not support the precision; `f` is then not run.
    pub(crate) fn forward<T>(self, device: Device, f: impl FnOnce() -> T) -> torch_ext::Result<T> {
        self.products(|| torch_ext::autocast(device, self.autocast(), f))?
    }

    /// Runs `f` with TF32 allowed in the matrix products of fp32 tensors if the precision implies
    /// it. A backward pass needs only this, because it runs outside of autocast.
    ///
    /// # Errors
    /// Returns an error if libtorch cannot change the setting; `f` is then not run.
    pub(crate) fn products<T>(self, f: impl FnOnce() -> T) -> torch_ext::Result<T> {
        match self {
            Self::Tf32 => torch_ext::with_tf32(true, f),
            _ => Ok(f()),
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
