//! SGD with momentum, and LARS, which scales each step to the norm of the parameter.

use tch::Tensor;

use super::rule::{Group, StepHyperparams, Update};
use crate::error::Result;

/// Updates each parameter `p` with gradient `g` in place:
///
/// ```text
/// d = g + weight_decay p
/// d *= trust |p| / |d|        LARS only, unless p is one-dimensional or a norm is 0
/// m = momentum m + d
/// p -= lr m
/// ```
///
/// # Source
/// `torch.optim.SGD`; `LARS` of DINO (utils.py at 7c446df).
pub(super) struct Sgd {
    /// Momentum.
    pub momentum: f64,
    /// For LARS, the ratio of the norm of a step to that of the parameter; `None` for SGD.
    pub trust_coefficient: Option<f64>,
}

impl Update for Sgd {
    fn slots(&self) -> &'static [(&'static str, bool)] {
        &[("momentum_buffer", false)]
    }

    fn update(&self, group: &mut Group, pace: StepHyperparams) -> Result<()> {
        tch::no_grad(|| {
            for (param, buffer) in group.of.params.iter_mut().zip(&mut group.slots[0]) {
                let mut step = param.grad() + &*param * pace.weight_decay;
                if let Some(trust) = self.trust_coefficient.filter(|_| param.dim() != 1) {
                    step = &step * trust_ratio(param, &step, trust);
                }
                let _ = buffer.f_mul_scalar_(self.momentum)?.f_add_(&step)?;
                let _ = param.f_sub_(&(&*buffer * pace.lr))?;
            }
            Ok(())
        })
    }
}

/// Returns `trust |p| / |d|`, or 1 if a norm is 0; 0-dimensional, on the device.
fn trust_ratio(param: &Tensor, step: &Tensor, trust: f64) -> Tensor {
    let (of_param, of_step) = (param.norm(), step.norm());
    let both = of_param.gt(0.0).logical_and(&of_step.gt(0.0));
    (of_param * trust / of_step).where_self(&both, &both.ones_like().to_kind(step.kind()))
}
