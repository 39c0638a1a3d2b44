//! AdamW with two groups, decayed matrices and everything else, on libtorch's fused kernel.
//!
//! The state is in our hands, so that a checkpoint holds all of it. It does not own schedules:
//! learning rate and weight decay come with each step.

use tch::Tensor;
use torch_ext::AdamWStep;

use crate::config::OptimConfig;
use crate::error::{Error, Result};
use crate::schedule::StepValues;

/// Parameters that share a weight decay.
struct Group {
    names: Vec<String>,
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
    decayed: bool,
}

impl Group {
    fn new(named: Vec<(String, Tensor)>, decayed: bool) -> Self {
        let (names, params): (Vec<_>, Vec<_>) = named.into_iter().unzip();
        let zeros = || params.iter().map(|p: &Tensor| p.zeros_like().detach()).collect();
        let steps =
            params.iter().map(|p| Tensor::zeros([], (tch::Kind::Float, p.device()))).collect();
        Self { exp_avgs: zeros(), exp_avg_sqs: zeros(), steps, names, params, decayed }
    }
}

/// AdamW (decoupled weight decay).
pub struct AdamW {
    groups: [Group; 2],
    beta1: f64,
    beta2: f64,
    eps: f64,
}

/// Whether weight decay applies to a parameter.
///
/// # Source
/// `get_params_groups` of the DINO reference: biases and one-dimensional parameters are left out.
pub fn is_decayed(name: &str, param: &Tensor) -> bool {
    param.dim() >= 2 && !name.ends_with(".bias")
}

impl AdamW {
    /// Optimiser of named parameters, with zero state.
    pub fn new(named: &[(String, Tensor)], config: &OptimConfig) -> Self {
        let (decayed, plain): (Vec<_>, Vec<_>) = named
            .iter()
            .map(|(name, p)| (name.clone(), p.shallow_clone()))
            .partition(|(name, p)| is_decayed(name, p));
        Self {
            groups: [Group::new(decayed, true), Group::new(plain, false)],
            beta1: config.beta1,
            beta2: config.beta2,
            eps: config.adam_eps,
        }
    }

    /// One update from the gradients that the parameters hold.
    pub fn step(&mut self, values: &StepValues) -> Result<()> {
        for group in self.groups.iter().filter(|g| !g.params.is_empty()) {
            let grads: Vec<Tensor> = group.params.iter().map(Tensor::grad).collect();
            torch_ext::fused_adamw_(&AdamWStep {
                params: &group.params,
                grads: &grads,
                exp_avgs: &group.exp_avgs,
                exp_avg_sqs: &group.exp_avg_sqs,
                steps: &group.steps,
                lr: values.lr,
                beta1: self.beta1,
                beta2: self.beta2,
                weight_decay: if group.decayed { values.weight_decay } else { 0.0 },
                eps: self.eps,
            })?;
        }
        Ok(())
    }

    /// The whole state under stable names, sharing storage with the optimiser.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for group in &self.groups {
            for (i, name) in group.names.iter().enumerate() {
                state.push((format!("exp_avg.{name}"), group.exp_avgs[i].shallow_clone()));
                state.push((format!("exp_avg_sq.{name}"), group.exp_avg_sqs[i].shallow_clone()));
                state.push((format!("step.{name}"), group.steps[i].shallow_clone()));
            }
        }
        state
    }

    /// Takes over a saved state.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load_state(&mut self, saved: &std::collections::BTreeMap<String, Tensor>) -> Result<()> {
        for (name, mut tensor) in self.state() {
            copy_named(&mut tensor, &name, saved)?;
        }
        Ok(())
    }
}

/// Copies the saved tensor `name` into `target`.
pub(crate) fn copy_named(
    target: &mut Tensor,
    name: &str,
    saved: &std::collections::BTreeMap<String, Tensor>,
) -> Result<()> {
    let source = saved
        .get(name)
        .ok_or_else(|| Error::Settings(format!("the checkpoint has no tensor '{name}'")))?;
    if source.size() != target.size() {
        return Err(Error::Settings(format!(
            "the checkpoint's tensor '{name}' has shape {:?}, the network needs {:?}",
            source.size(),
            target.size()
        )));
    }
    tch::no_grad(|| target.f_copy_(source))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn decays_matrices_only() {
        let t = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert!(is_decayed("backbone.blocks.0.attn.qkv.weight", &t(&[6, 2])));
        assert!(is_decayed("backbone.pos_embed", &t(&[1, 5, 2])));
        assert!(!is_decayed("backbone.norm.weight", &t(&[2])));
        assert!(!is_decayed("head.mlp.0.bias", &t(&[2])));
    }
}
