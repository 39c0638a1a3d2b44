//! Gradient clipping per parameter tensor (DINO) or per module (DINOv2).

use tch::{Kind, Tensor};

use crate::config::ClipScope;
use crate::error::Result;

/// The gradients to clip, and which of them are clipped together.
pub(crate) struct Clip {
    max_norm: Option<f64>,
    scope: ClipScope,
    /// First components of the parameter names: `backbone`, `head`, `patch_head`.
    fronts: Vec<String>,
    /// Index into `fronts` for each parameter.
    modules: Vec<usize>,
}

/// L2 norms of gradients before clipping.
pub struct GradNorms {
    /// Norm of all gradients together.
    pub all: f64,
    /// Norm per module.
    pub by_module: Vec<(String, f64)>,
    /// Norm of the gradient of each parameter.
    of_each: Vec<f64>,
}

impl Clip {
    /// Creates clipping of the named parameters' gradients to norms of at most `max_norm`; `None`
    /// only measures.
    pub(crate) fn new<'a>(
        names: impl Iterator<Item = &'a str>,
        scope: ClipScope,
        max_norm: Option<f64>,
    ) -> Self {
        let mut fronts: Vec<String> = Vec::new();
        let mut modules = Vec::new();
        for name in names {
            let front = name.split('.').next().unwrap_or_default();
            let place = fronts.iter().position(|other| other == front).unwrap_or_else(|| {
                fronts.push(front.to_owned());
                fronts.len() - 1
            });
            modules.push(place);
        }
        Self { max_norm, scope, fronts, modules }
    }

    /// Combines the norms `of_each` gradient. A sum of squares that the `kind` of the gradients
    /// cannot represent counts as infinite, although it is computed in double precision here,
    /// because the optimizer squares the gradients, too.
    pub(crate) fn norms(&self, of_each: Vec<f64>, kind: Kind) -> GradNorms {
        let root = |squares: f64| match kind {
            Kind::Double => squares.sqrt(),
            _ => f64::from(squares as f32).sqrt(),
        };
        let mut by_module = vec![0.0; self.fronts.len()];
        for (norm, &module) in of_each.iter().zip(&self.modules) {
            by_module[module] += norm * norm;
        }
        let all = root(by_module.iter().sum());
        let by_module = self.fronts.iter().cloned().zip(by_module.into_iter().map(root)).collect();
        GradNorms { all, by_module, of_each }
    }

    /// Scales the gradients so that no norm exceeds the maximum, `g <- g * min(1, max_norm / (|g|
    /// + 1e-6))`. Gradients that need no scaling are not touched.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    ///
    /// # Source
    /// `clip_gradients` of DINO; the per-module clipping of backbone and heads in DINOv2.
    pub(crate) fn apply(&self, grads: &[Tensor], norms: &GradNorms) -> Result<()> {
        let Some(max_norm) = self.max_norm else { return Ok(()) };
        let (mut clipped, mut factors) = (Vec::new(), Vec::new());
        for (i, grad) in grads.iter().enumerate() {
            let judged = match self.scope {
                ClipScope::Tensor => norms.of_each[i],
                ClipScope::Module => norms.by_module[self.modules[i]].1,
            };
            let factor = max_norm / (judged + 1e-6);
            if factor < 1.0 {
                clipped.push(grad.shallow_clone());
                factors.push(factor);
            }
        }
        Ok(torch_ext::foreach_mul_(&clipped, &factors)?)
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    fn parameter(gradient: &[f32]) -> Tensor {
        let p = Tensor::zeros([gradient.len() as i64], (Kind::Float, Device::Cpu))
            .set_requires_grad(true);
        (&p * Tensor::from_slice(gradient)).sum(Kind::Float).backward();
        p
    }

    fn sizes(params: &[Tensor]) -> Vec<f64> {
        params.iter().map(|p| p.grad().norm().double_value(&[])).collect()
    }

    /// Clips the gradients, and returns their norms before.
    fn clipped(scope: ClipScope, max_norm: Option<f64>, params: &[Tensor]) -> GradNorms {
        let clip = Clip::new(NAMES[..params.len()].iter().copied(), scope, max_norm);
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
        let norms = clip.norms(sizes(params), Kind::Float);
        clip.apply(&grads, &norms).unwrap();
        norms
    }

    fn close(got: &[f64], expected: &[f64]) {
        let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near && got.len() == expected.len(), "{got:?}, expected {expected:?}");
    }

    const NAMES: [&str; 3] = ["backbone.a", "backbone.b", "head.a"];

    #[test]
    fn clips_each_tensor_on_its_own() {
        let params = [parameter(&[3.0, 4.0]), parameter(&[0.3, 0.4])];
        close(&[clipped(ClipScope::Tensor, Some(1.0), &params).all], &[25.25f64.sqrt()]);
        close(&sizes(&params), &[1.0, 0.5]);
    }

    #[test]
    fn clips_a_module_as_a_whole() {
        let params = [parameter(&[3.0]), parameter(&[4.0]), parameter(&[0.5])];
        let norms = clipped(ClipScope::Module, Some(1.0), &params);
        close(
            &[norms.all, norms.by_module[0].1, norms.by_module[1].1],
            &[25.25f64.sqrt(), 5.0, 0.5],
        );
        close(&sizes(&params), &[0.6, 0.8, 0.5]);
        assert_eq!([&*norms.by_module[0].0, &*norms.by_module[1].0], ["backbone", "head"]);
    }

    #[test]
    fn without_a_limit_the_norms_are_only_measured() {
        let params = [parameter(&[3.0, 4.0])];
        close(&[clipped(ClipScope::Tensor, None, &params).all], &[5.0]);
        close(&sizes(&params), &[5.0]);
    }

    #[test]
    fn norms_that_the_gradients_could_not_hold_are_not_finite() {
        let clip = Clip::new(NAMES.into_iter(), ClipScope::Tensor, Some(1.0));
        let all = |of_each: [f64; 3], kind| clip.norms(of_each.to_vec(), kind).all;
        for wrong in [f64::NAN, f64::INFINITY] {
            assert!(!all([1.0, wrong, 1.0], Kind::Double).is_finite());
        }
        // The sum of their squares exceeds 3.4e38.
        assert!(!all([1.5e19, 1.5e19, 0.0], Kind::Float).is_finite());
        assert!(all([1.5e19, 1.5e19, 0.0], Kind::Double).is_finite());
        assert!(all([1.5e19, 0.0, 0.0], Kind::Float).is_finite());
    }
}
