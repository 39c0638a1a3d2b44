//! AdamW for the heads of dense evaluations.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};
use torch_ext::{AdamWStep, fused_adamw_};

use crate::error::Result;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// Parameters that require gradients, and their optimizer state.
pub(crate) struct AdamW {
    /// Parameters by name.
    params: Vec<(&'static str, Tensor)>,
    means: Vec<Tensor>,
    squares: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl AdamW {
    pub(crate) fn new(params: &[(&'static str, Tensor)]) -> Self {
        let params: Vec<_> =
            params.iter().map(|(name, param)| (*name, param.shallow_clone())).collect();
        let like = |of: fn(&Tensor) -> Tensor| -> Vec<Tensor> {
            params.iter().map(|(_, param)| of(&param.detach())).collect()
        };
        let steps = like(|param| Tensor::zeros([0; 0], (Kind::Float, param.device())));
        Self { means: like(Tensor::zeros_like), squares: like(Tensor::zeros_like), steps, params }
    }

    /// Takes one step on the gradient of a loss, whose norm is clipped to `clip` if given.
    pub(crate) fn step(
        &mut self,
        loss: &Tensor,
        lr: f64,
        weight_decay: f64,
        clip: Option<f64>,
    ) -> Result<()> {
        let params: Vec<Tensor> =
            self.params.iter().map(|(_, param)| param.shallow_clone()).collect();
        let mut grads = Tensor::f_run_backward(&[loss], &params, false, false)?;
        if let Some(most) = clip {
            let squares =
                grads.iter().map(|grad| grad.square().sum(Kind::Double).double_value(&[]));
            let norm = squares.sum::<f64>().sqrt();
            if norm > most {
                grads.iter_mut().for_each(|grad| *grad *= most / norm);
            }
        }
        let params: Vec<Tensor> = params.iter().map(Tensor::detach).collect();
        fused_adamw_(&AdamWStep {
            params: &params,
            grads: &grads,
            exp_avgs: &self.means,
            exp_avg_sqs: &self.squares,
            steps: &self.steps,
            lr,
            beta1: BETAS.0,
            beta2: BETAS.1,
            weight_decay,
            eps: EPS,
        })?;
        Ok(())
    }

    /// Returns whether any step was taken, including before an interruption.
    pub(crate) fn has_stepped(&self) -> bool {
        self.steps.iter().any(|steps| steps.double_value(&[]) > 0.0)
    }

    /// Returns the tensors of the state by name; they share memory with it.
    pub(crate) fn tensors(&self) -> BTreeMap<String, Tensor> {
        let mut tensors = BTreeMap::new();
        let names = self.params.iter().map(|(name, _)| name);
        for (((name, mean), square), step) in
            names.zip(&self.means).zip(&self.squares).zip(&self.steps)
        {
            tensors.insert(format!("optimizer.mean.{name}"), mean.shallow_clone());
            tensors.insert(format!("optimizer.square.{name}"), square.shallow_clone());
            tensors.insert(format!("optimizer.step.{name}"), step.shallow_clone());
        }
        tensors
    }
}
