//! Gradient clipping, of each parameter tensor or of each module, as the references do it.

use tch::{Device, Tensor};

use crate::config::ClipScope;
use crate::error::Result;

/// Gradients that are clipped, and what is clipped together.
pub struct Clip {
    max_norm: f64,
    scope: ClipScope,
    /// First part of the names of parameters: `backbone`, `head`, `patch_head`.
    fronts: Vec<String>,
    /// Place in `fronts` of each parameter, `[P]`, on the device of the gradients.
    modules: Tensor,
}

/// L2 norms of gradients before clipping, 0-dim and on their device.
pub struct GradNorms {
    /// Of all of them together.
    pub all: Tensor,
    /// Of each module.
    pub by_module: Vec<(String, Tensor)>,
}

impl Clip {
    /// Clipping of parameters of these names, on `device`, to norms of at most `max_norm`; 0 only
    /// measures.
    ///
    /// # Errors
    /// The device is not there.
    pub fn new<'a>(
        names: impl Iterator<Item = &'a str>,
        device: Device,
        scope: ClipScope,
        max_norm: f64,
    ) -> Result<Self> {
        let mut fronts: Vec<String> = Vec::new();
        let mut modules = Vec::new();
        for name in names {
            let front = name.split('.').next().unwrap_or_default();
            let place = fronts.iter().position(|other| other == front).unwrap_or_else(|| {
                fronts.push(front.to_owned());
                fronts.len() - 1
            });
            modules.push(place as i64);
        }
        let modules = Tensor::f_from_slice(&modules)?.f_to_device(device)?;
        Ok(Self { max_norm, scope, fronts, modules })
    }

    /// Scales the gradients so that no norm is above the largest allowed,
    /// `g <- g * min(1, max_norm / (|g| + 1e-6))`, and returns the norms before that. Does not wait
    /// for the device.
    ///
    /// # Errors
    /// A libtorch operation fails.
    ///
    /// # Source
    /// `clip_gradients` of DINO; the clipping of each of backbone and heads in DINOv2.
    pub fn apply(&self, params: &[Tensor]) -> Result<GradNorms> {
        let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
        let norms = Tensor::stack(&torch_ext::foreach_norm(&grads)?, 0); // [P]
        let squares = Tensor::zeros([self.fronts.len() as i64], (norms.kind(), norms.device()));
        let by_module = squares.index_add(0, &self.modules, &norms.square()).sqrt(); // [modules]
        if self.max_norm > 0.0 {
            let judged = match self.scope {
                ClipScope::Tensor => norms.shallow_clone(),
                ClipScope::Module => by_module.index_select(0, &self.modules),
            };
            let factors = (self.max_norm / (judged + 1e-6)).clamp_max(1.0);
            torch_ext::foreach_mul_(&grads, &factors.unbind(0))?;
        }
        let by_module = self.fronts.iter().cloned().zip(by_module.unbind(0)).collect();
        Ok(GradNorms { all: norms.norm(), by_module })
    }
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    fn parameter(gradient: &[f32]) -> Tensor {
        let p = Tensor::zeros([gradient.len() as i64], (Kind::Float, Device::Cpu))
            .set_requires_grad(true);
        (&p * Tensor::from_slice(gradient)).sum(Kind::Float).backward();
        p
    }

    fn norms(params: &[Tensor]) -> Vec<f64> {
        params.iter().map(|p| p.grad().norm().double_value(&[])).collect()
    }

    fn close(got: &[f64], expected: &[f64]) {
        let near = got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near && got.len() == expected.len(), "{got:?}, expected {expected:?}");
    }

    const NAMES: [&str; 3] = ["backbone.a", "backbone.b", "head.a"];

    #[test]
    fn clips_each_tensor_on_its_own() {
        let params = [parameter(&[3.0, 4.0]), parameter(&[0.3, 0.4])];
        let clip =
            Clip::new(NAMES[..2].iter().copied(), Device::Cpu, ClipScope::Tensor, 1.0).unwrap();
        close(&[clip.apply(&params).unwrap().all.double_value(&[])], &[25.25f64.sqrt()]);
        close(&norms(&params), &[1.0, 0.5]);
    }

    #[test]
    fn clips_a_module_as_a_whole() {
        let params = [parameter(&[3.0]), parameter(&[4.0]), parameter(&[0.5])];
        let clip = Clip::new(NAMES.into_iter(), Device::Cpu, ClipScope::Module, 1.0).unwrap();
        close(&[clip.apply(&params).unwrap().all.double_value(&[])], &[25.25f64.sqrt()]);
        close(&norms(&params), &[0.6, 0.8, 0.5]);
        let clipped = clip.apply(&params).unwrap().by_module;
        close(&[clipped[0].1.double_value(&[]), clipped[1].1.double_value(&[])], &[1.0, 0.5]);
        assert_eq!([&*clipped[0].0, &*clipped[1].0], ["backbone", "head"]);
    }

    #[test]
    fn zero_only_measures() {
        let params = [parameter(&[3.0, 4.0])];
        let clip =
            Clip::new(NAMES[..1].iter().copied(), Device::Cpu, ClipScope::Tensor, 0.0).unwrap();
        close(&[clip.apply(&params).unwrap().all.double_value(&[])], &[5.0]);
        close(&norms(&params), &[5.0]);
    }
}
