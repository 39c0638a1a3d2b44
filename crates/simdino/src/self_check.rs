//! A short numerical check of a device, which compares training computations with the CPU in double
//! precision.
//!
//! Errors are the largest difference relative to the largest value of the reference. The tolerances
//! are those of single precision with some margin; for products in TF32, as with
//! `train.precision: tf32`, or in bfloat16, they account for factors with 10 or 7 mantissa bits.

use std::fmt;

use model::{Arch, HeadConfig, ModelConfig};
use model::{Mode, Network};
use objectives::RatePrecision;
use objectives::coding_rate::{RateOptions, coding_rate};
use tch::{Device, Kind, Tensor, nn};
use torch_ext::{AdamWStep, autocast, foreach_lerp_, fused_adamw_, with_tf32};

use crate::error::Result;

/// Number of rows, width, and `alpha` of the coding rate in the check.
const RATE: (i64, i64, f64) = (64, 256, 80.0);
/// Largest allowed error of a network in single precision.
const EXACT: f64 = 1e-4;
/// Largest allowed error with factors rounded to TF32.
const ROUNDED: f64 = 5e-3;
/// Number of AdamW steps in the check.
const STEPS: i64 = 3;

/// One comparison.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// What was compared.
    pub what: &'static str,
    /// Largest difference relative to the largest value of the reference.
    pub error: f64,
    /// Largest allowed error.
    pub tolerance: f64,
}

impl Outcome {
    fn new(what: &'static str, got: &Tensor, expect: &Tensor, tolerance: f64) -> Self {
        let got = got.detach().to_device(Device::Cpu).to_kind(Kind::Double);
        let expect = expect.detach();
        let error = (got - &expect).abs().max() / expect.abs().max();
        Self { what, error: error.double_value(&[]), tolerance }
    }

    /// Returns whether the error is within the tolerance; NaN is not.
    pub fn passed(&self) -> bool {
        self.error <= self.tolerance
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.passed() { "ok" } else { "FAILED" };
        write!(
            f,
            "{word:<7}{:<28} error {:.1e}, allowed {:.0e}",
            self.what, self.error, self.tolerance
        )
    }
}

/// Checks a device. Inaccurate results are not errors; see [`Outcome::passed`].
///
/// # Errors
/// Returns an error if an operation fails.
pub fn run(device: Device) -> Result<Vec<Outcome>> {
    let mut outcomes = rate(device)?;
    outcomes.extend(network(device)?);
    outcomes.extend(one_query(device)?);
    outcomes.extend(updates(device)?);
    Ok(outcomes)
}

/// Returns pseudo-random numbers with mean 0 and standard deviation 1, the same for the same `key`.
/// No generator is used, so that the check does not change the state of any. Regular numbers, such
/// as those of a wave, would give matrices of low rank, which amplify rounding errors.
fn noise(shape: &[i64], key: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = Tensor::arange(count, (Kind::Double, Device::Cpu)) * 12.9898 + key;
    ((phase.sin() * 43758.5453).frac() * 3f64.sqrt()).reshape(shape)
}

fn rate(device: Device) -> Result<Vec<Outcome>> {
    let (n, d, alpha) = RATE;
    let z = noise(&[2, n, d], 1.0);
    let z = &z / z.square().sum_dim_intlist(-1, true, None).sqrt(); // unit rows
    let double = RateOptions { precision: RatePrecision::Fp64, ..RateOptions::new(alpha) };
    let expect = coding_rate(&z, &double)?;
    let z = z.to_kind(Kind::Float).to_device(device);
    let got = coding_rate(&z, &RateOptions::new(alpha))?;
    Ok(vec![
        Outcome::new("coding rate", &got.value, &expect.value, 1e-5),
        Outcome::new("coding rate, gradient", &got.gradient, &expect.gradient, 1e-4),
    ])
}

/// Creates a small network whose weights are the same on all devices.
fn nano(device: Device, kind: Kind) -> Result<(nn::VarStore, Network)> {
    let mut vars = nn::VarStore::new(device);
    let model = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 64,
        drop_path_rate: 0.0,
        ..ModelConfig::default()
    };
    let head = HeadConfig { hidden_dim: 256, out_dim: 64, ..HeadConfig::default() };
    let network = Network::new(&vars, &model, &head)?;
    if kind == Kind::Double {
        vars.double();
    }
    for (i, (name, mut variable)) in model::weights::named_variables(&vars).into_iter().enumerate()
    {
        let noise = noise(&variable.size(), i as f64) * 0.05;
        // Weights of norms are vectors around 1; matrices and biases are around 0.
        let is_norm = variable.dim() == 1 && name.ends_with("weight");
        let value = if is_norm { noise + 1.0 } else { noise };
        tch::no_grad(|| variable.f_copy_(&value))?;
    }
    Ok((vars, network))
}

/// Sides of square images in pixels, which have 17, 37, 65, and 197 tokens, and names of outcomes.
const ONE_QUERY: [(i64, [&str; 3]); 4] = [
    (32, ["class token of 17, bf16", "class token of 17, gradient", "through all blocks of 17"]),
    (48, ["class token of 37, bf16", "class token of 37, gradient", "through all blocks of 37"]),
    (64, ["class token of 65, bf16", "class token of 65, gradient", "through all blocks of 65"]),
    (
        112,
        ["class token of 197, bf16", "class token of 197, gradient", "through all blocks of 197"],
    ),
];

/// Checks the last block with the class token as its only query, as in every step of SimDINO and
/// DINO. Compares the class token, and the gradients of the last block and of the first weight, in
/// bfloat16 with those of all queries in double precision.
fn one_query(device: Device) -> Result<Vec<Outcome>> {
    let (expect_vars, reference) = nano(Device::Cpu, Kind::Double)?;
    let (vars, here) = nano(device, Kind::Float)?;
    let last = "backbone.blocks.3.attn.qkv.weight";
    let mut outcomes = Vec::new();
    for (side, [value, gradient, through]) in ONE_QUERY {
        let images = noise(&[4, 3, side, side], 5.0);
        let factors = noise(&[4, 128], 6.0);
        let expect = reference.backbone.forward(&images, Mode::Eval)?.cls;
        (&expect * &factors).sum(None).f_backward()?;
        let images = images.to_kind(Kind::Float).to_device(device);
        let got = autocast(device, Some(Kind::BFloat16), || {
            here.backbone.forward_cls(&images, Mode::Eval)
        })??;
        let factors = factors.to_kind(Kind::Float).to_device(device);
        (&got * factors).sum(None).f_backward()?;
        outcomes.push(Outcome::new(value, &got, &expect, 0.1));
        let gradients = [&vars, &expect_vars].map(|vars| gradient_of(vars, last));
        outcomes.push(Outcome::new(gradient, &gradients[0], &gradients[1], 0.1));
        let gradients = [&vars, &expect_vars].map(first_gradient);
        outcomes.push(Outcome::new(through, &gradients[0], &gradients[1], 0.1));
        for vars in [&vars, &expect_vars] {
            vars.trainable_variables().iter_mut().for_each(Tensor::zero_grad);
        }
    }
    Ok(outcomes)
}

fn network(device: Device) -> Result<Vec<Outcome>> {
    let images = noise(&[4, 3, 64, 64], 2.0);
    let (expect, expect_grad) = forward_backward(Device::Cpu, Kind::Double, &images)?;
    let (got, gradient) = with_tf32(false, || forward_backward(device, Kind::Float, &images))??;
    let (_vars, here) = nano(device, Kind::Float)?;
    let on_device = images.to_kind(Kind::Float).to_device(device);
    let half = autocast(device, Some(Kind::BFloat16), || {
        here.backbone.forward(&on_device, Mode::Eval).map(|tokens| tokens.patches)
    })??;
    let mut outcomes = vec![
        Outcome::new("vision transformer", &got, &expect, EXACT),
        Outcome::new("vision transformer, gradient", &gradient, &expect_grad, 4.0 * EXACT),
        Outcome::new("the same in bf16 autocast", &half, &expect, 0.1),
    ];
    if device.is_cuda() {
        let (got, gradient) = with_tf32(true, || forward_backward(device, Kind::Float, &images))??;
        outcomes.push(Outcome::new("the same in TF32", &got, &expect, ROUNDED));
        outcomes.push(Outcome::new("in TF32, gradient", &gradient, &expect_grad, 4.0 * ROUNDED));
    }
    Ok(outcomes)
}

/// Returns the patch tokens, and the gradient of the first weight for a loss that depends on every
/// weight, without randomness.
fn forward_backward(device: Device, kind: Kind, images: &Tensor) -> Result<(Tensor, Tensor)> {
    let (vars, network) = nano(device, kind)?;
    let tokens = network.backbone.forward(&images.to_kind(kind).to_device(device), Mode::Eval)?;
    let projected = network.head.forward(&tokens.cls)?;
    let weights = noise(&projected.size(), 0.5).to_kind(projected.kind()).to_device(device);
    (projected * weights).sum(None).f_backward()?;
    Ok((tokens.patches, first_gradient(&vars)))
}

/// Returns the gradient of the weight that is farthest from the loss.
fn first_gradient(vars: &nn::VarStore) -> Tensor {
    gradient_of(vars, "backbone.patch_embed.proj.weight")
}

fn gradient_of(vars: &nn::VarStore, weight: &str) -> Tensor {
    let variables = model::weights::named_variables(vars);
    let found = variables.iter().find(|(name, _)| name == weight);
    found.map_or_else(Tensor::new, |(_, variable)| variable.grad().copy())
}

/// Compares AdamW and the teacher's moving average with their formulas.
fn updates(device: Device) -> Result<Vec<Outcome>> {
    let (lr, beta1, beta2, weight_decay, eps) = (1e-2, 0.9, 0.999, 0.1, 1e-8);
    let mut expect = noise(&[1000], 3.0);
    let grad = noise(&[1000], 4.0);
    let place = |t: &Tensor| [t.to_kind(Kind::Float).to_device(device)];
    let (params, grads) = (place(&expect), place(&grad));
    let moments = [place(&expect.zeros_like()), place(&expect.zeros_like())];
    let steps = [Tensor::zeros([], (Kind::Float, device))];
    let (mut mean, mut square) = (expect.zeros_like(), expect.zeros_like());
    for step in 1..=STEPS {
        fused_adamw_(&AdamWStep {
            params: &params,
            grads: &grads,
            exp_avgs: &moments[0],
            exp_avg_sqs: &moments[1],
            steps: &steps,
            lr,
            beta1,
            beta2,
            weight_decay,
            eps,
        })?;
        mean = mean * beta1 + &grad * (1.0 - beta1);
        square = square * beta2 + grad.square() * (1.0 - beta2);
        let corrected = |moment: &Tensor, beta: f64| moment / (1.0 - beta.powi(step as i32));
        let update = corrected(&mean, beta1) / (corrected(&square, beta2).sqrt() + eps);
        expect = expect * (1.0 - lr * weight_decay) - update * lr;
    }
    let adamw = Outcome::new("AdamW, three steps", &params[0], &expect, 1e-5);
    foreach_lerp_(&params, &grads, 0.25)?;
    let expect = &expect + (&grad - &expect) * 0.25;
    Ok(vec![adamw, Outcome::new("teacher's average", &params[0], &expect, 1e-5)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_passes() {
        for outcome in run(Device::Cpu).unwrap() {
            assert!(outcome.passed(), "{outcome}");
        }
    }

    #[test]
    fn a_wrong_result_fails() {
        let expect = noise(&[10], 0.5);
        assert!(!Outcome::new("x", &(&expect * 1.01), &expect, 1e-3).passed());
        assert!(!Outcome::new("x", &(&expect * f64::NAN), &expect, 1e-3).passed());
    }
}
