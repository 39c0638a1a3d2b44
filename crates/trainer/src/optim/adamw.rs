//! AdamW with libtorch's fused kernel.

use tch::Tensor;
use torch_ext::AdamWStep;

use super::rule::{Group, StepHyperparams, Update};
use crate::config::OptimConfig;
use crate::error::Result;

/// Adam with decoupled weight decay, see [`torch_ext::fused_adamw_`].
pub(super) struct AdamW {
    beta1: f64,
    beta2: f64,
    eps: f64,
}

impl AdamW {
    /// Creates the rule that a config describes.
    pub(super) fn new(config: &OptimConfig) -> Self {
        Self { beta1: config.beta1, beta2: config.beta2, eps: config.adam_eps }
    }
}

impl Update for AdamW {
    fn slots(&self) -> &'static [(&'static str, bool)] {
        &[("exp_avg", false), ("exp_avg_sq", false), ("step", true)]
    }

    fn update(&self, group: &mut Group, pace: StepHyperparams) -> Result<()> {
        let grads: Vec<Tensor> = group.of.params.iter().map(Tensor::grad).collect();
        Ok(torch_ext::fused_adamw_(&AdamWStep {
            params: &group.of.params,
            grads: &grads,
            exp_avgs: &group.slots[0],
            exp_avg_sqs: &group.slots[1],
            steps: &group.slots[2],
            lr: pace.lr,
            beta1: self.beta1,
            beta2: self.beta2,
            weight_decay: pace.weight_decay,
            eps: self.eps,
        })?)
    }
}
