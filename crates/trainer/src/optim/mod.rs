//! The optimizers. All of their state is accessible, so that a checkpoint contains all of it.
//!
//! Optimizers do not own schedules: the learning rate and weight decay are passed to each step.

mod adamw;
mod rule;
mod sgd;

use std::collections::BTreeMap;

use tch::Tensor;

use self::rule::{Group, StepHyperparams, Update};
use crate::config::{FreezeForm, OptimConfig, OptimizerKind};
use crate::error::{Error, Result};
use crate::param_groups::{self, ParamRole};
use crate::schedule::StepValues;

/// Parameter groups, and the rule that updates them.
pub struct Optimizer {
    groups: Vec<Group>,
    rule: Box<dyn Update>,
    freeze_form: FreezeForm,
}

impl Optimizer {
    /// Creates an optimizer with zero state for the named parameters of a network with `depth`
    /// blocks.
    pub fn new(named: &[(String, Tensor)], depth: i64, config: &OptimConfig) -> Self {
        let rule: Box<dyn Update> = match config.optimizer {
            OptimizerKind::Adamw => Box::new(adamw::AdamW::new(config)),
            OptimizerKind::Sgd => {
                Box::new(sgd::Sgd { momentum: config.momentum, trust_coefficient: None })
            }
            OptimizerKind::Lars => Box::new(sgd::Sgd {
                momentum: config.momentum,
                trust_coefficient: Some(config.trust_coefficient),
            }),
        };
        let groups = param_groups::of(named, depth, config).into_iter();
        let groups = groups.map(|of| Group { slots: zeros(&of.params, rule.slots()), of });
        Self { groups: groups.collect(), rule, freeze_form: config.freeze_form }
    }

    /// Updates the parameters from their gradients.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn step(&mut self, values: &StepValues) -> Result<()> {
        for group in &mut self.groups {
            let frozen = group.of.part == ParamRole::LastLayer && values.last_layer_frozen;
            let kept = group.of.part == ParamRole::Backbone && values.backbone_frozen;
            if kept || (frozen && self.freeze_form == FreezeForm::Gradient) {
                continue;
            }
            let pace = StepHyperparams {
                lr: if frozen { 0.0 } else { values.lr * group.of.lr_mult },
                weight_decay: if group.of.decayed { values.weight_decay } else { 0.0 },
            };
            self.rule.update(group, pace)?;
        }
        Ok(())
    }

    /// Returns the complete state as `{slot}.{parameter}`, sharing storage with the optimizer.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = Vec::new();
        for group in &self.groups {
            for (i, name) in group.of.names.iter().enumerate() {
                for ((slot, _), tensors) in self.rule.slots().iter().zip(&group.slots) {
                    state.push((format!("{slot}.{name}"), tensors[i].shallow_clone()));
                }
            }
        }
        state
    }

    /// Restores a saved state.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has a different shape.
    pub fn load_state(&mut self, saved: &BTreeMap<String, Tensor>) -> Result<()> {
        for (name, mut tensor) in self.state() {
            copy_named(&mut tensor, &name, saved)?;
        }
        Ok(())
    }
}

fn zeros(params: &[Tensor], slots: &[(&str, bool)]) -> Vec<Vec<Tensor>> {
    let zero = |param: &Tensor, number: bool| match number {
        true => Tensor::zeros([], (tch::Kind::Float, param.device())),
        false => param.zeros_like().detach(),
    };
    let of_slot = |&(_, number): &(&str, bool)| params.iter().map(|p| zero(p, number)).collect();
    slots.iter().map(of_slot).collect()
}

/// Copies the saved tensor `name` into `target`.
pub(crate) fn copy_named(
    target: &mut Tensor,
    name: &str,
    saved: &BTreeMap<String, Tensor>,
) -> Result<()> {
    let source = saved
        .get(name)
        .ok_or_else(|| Error::Settings(format!("the checkpoint has no tensor '{name}'")))?;
    if source.size() != target.size() {
        return Err(Error::Settings(format!(
            "the checkpoint's tensor '{name}' has shape {:?}, but the network needs {:?}",
            source.size(),
            target.size()
        )));
    }
    tch::no_grad(|| target.f_copy_(source))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::schedule::Schedules;

    fn parameter(name: &str) -> (String, Tensor) {
        let param = Tensor::from_slice(&[3.0, 4.0]).view([1, 2]).to_kind(Kind::Float);
        let param = param.set_requires_grad(true);
        (&param * 2.0).sum(Kind::Float).backward(); // gradient 2, 2
        (name.to_owned(), param)
    }

    fn values(last_layer_frozen: bool) -> StepValues {
        let values = Schedules::new(&OptimConfig::default(), 256, 1, 1).at(0);
        StepValues { lr: 0.5, weight_decay: 0.1, last_layer_frozen, ..values }
    }

    fn numbers(x: &Tensor) -> Vec<f32> {
        x.detach().view([-1]).try_into().unwrap()
    }

    #[test]
    fn sgd_by_hand() {
        let named = [parameter("backbone.cls_token")];
        let config = OptimConfig { optimizer: OptimizerKind::Sgd, ..Default::default() };
        let mut optimizer = Optimizer::new(&named, 4, &config);
        // With weight decay, the gradients are 2.3 and 2.4.
        optimizer.step(&values(false)).unwrap();
        assert_eq!(numbers(&named[0].1), [3.0 - 1.15, 4.0 - 1.2]);
        let momentum = &optimizer.state()[0];
        assert_eq!(momentum.0, "momentum_buffer.backbone.cls_token");
        assert!((numbers(&momentum.1)[0] - 2.3).abs() < 1e-6);
    }

    #[test]
    fn lars_moves_a_share_of_the_norm() {
        let named = [parameter("backbone.cls_token")];
        let config = OptimConfig {
            optimizer: OptimizerKind::Lars,
            trust_coefficient: 0.01,
            ..Default::default()
        };
        let mut optimizer = Optimizer::new(&named, 4, &config);
        let before = named[0].1.detach().copy();
        optimizer.step(&values(false)).unwrap();
        let moved = (&before - named[0].1.detach()).norm().double_value(&[]);
        assert!((moved - 0.5 * 0.01 * 5.0).abs() < 1e-6, "lr * trust * |p|: {moved}");
    }

    #[test]
    fn prototypes_stay_while_they_are_frozen() {
        for (freeze_form, moved) in [(FreezeForm::Gradient, 0.0), (FreezeForm::LearningRate, 0.2)] {
            let named = [parameter("head.last_layer.weight_v")];
            let config = OptimConfig { freeze_form, ..Default::default() };
            let mut optimizer = Optimizer::new(&named, 4, &config);
            optimizer.step(&values(true)).unwrap();
            assert_eq!(numbers(&named[0].1), [3.0, 4.0]);
            let exp_avg = numbers(&optimizer.state()[0].1)[0];
            assert!((exp_avg - moved).abs() < 1e-6, "{freeze_form:?}: {exp_avg}");
            optimizer.step(&values(false)).unwrap();
            assert_ne!(numbers(&named[0].1), [3.0, 4.0]);
        }
    }

    #[test]
    fn a_frozen_backbone_stays_while_its_head_learns() {
        let named = [parameter("backbone.cls_token"), parameter("head.mlp.0.weight")];
        let mut optimizer = Optimizer::new(&named, 4, &OptimConfig::default());
        optimizer.step(&StepValues { backbone_frozen: true, ..values(false) }).unwrap();
        assert_eq!(numbers(&named[0].1), [3.0, 4.0]);
        assert_ne!(numbers(&named[1].1), [3.0, 4.0]);
    }

    #[test]
    fn saved_state_of_another_shape_is_named() {
        let named = [parameter("backbone.cls_token")];
        let mut optimizer = Optimizer::new(&named, 4, &OptimConfig::default());
        let small = Tensor::zeros([2], (Kind::Float, Device::Cpu));
        let saved = BTreeMap::from([("exp_avg.backbone.cls_token".to_owned(), small)]);
        let error = optimizer.load_state(&saved).unwrap_err().to_string();
        assert!(
            error.contains("exp_avg.backbone.cls_token") && error.contains("[1, 2]"),
            "{error}"
        );
    }
}
