//! Gradient clipping of each parameter tensor, as the DINO reference does it.

use tch::{Kind, Tensor};

use crate::error::Result;

/// Scales every gradient to an L2 norm of at most `max_norm` and returns the norm of all
/// gradients together before that, as a 0-dim tensor on their device (no wait for the device).
///
/// `g <- g * min(1, max_norm / (||g|| + 1e-6))`, tensor by tensor; `max_norm` 0 only measures.
///
/// # Source
/// `clip_gradients` of the DINO reference.
pub fn clip_per_tensor(params: &[Tensor], max_norm: f64) -> Result<Tensor> {
    let grads: Vec<Tensor> = params.iter().map(Tensor::grad).collect();
    let norms = Tensor::stack(&torch_ext::foreach_norm(&grads)?, 0).to_kind(Kind::Float); // [P]
    if max_norm > 0.0 {
        let factors = (max_norm / (&norms + 1e-6)).clamp_max(1.0);
        torch_ext::foreach_mul_(&grads, &factors.unbind(0))?;
    }
    Ok(norms.norm())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clips_each_tensor_on_its_own() {
        let p = |g: &[f32]| {
            let p = Tensor::zeros([g.len() as i64], (Kind::Float, tch::Device::Cpu))
                .set_requires_grad(true);
            (&p * Tensor::from_slice(g)).sum(Kind::Float).backward();
            p
        };
        let params = [p(&[3.0, 4.0]), p(&[0.3, 0.4])];
        let norm = clip_per_tensor(&params, 1.0).unwrap().double_value(&[]);
        assert!((norm - (25.25f64).sqrt()).abs() < 1e-5);
        assert!((params[0].grad().norm().double_value(&[]) - 1.0).abs() < 1e-5);
        assert!((params[1].grad().norm().double_value(&[]) - 0.5).abs() < 1e-6);
        let _ = clip_per_tensor(&params, 0.0).unwrap();
        assert!((params[1].grad().norm().double_value(&[]) - 0.5).abs() < 1e-6);
    }
}
