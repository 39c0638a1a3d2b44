//! Properties of the coding rate: both sides, autograd, rotations, Theorem 3.1.

#![allow(clippy::unwrap_used)]

mod common;

use common::{coding_rate, number, relative, simdino};
use objectives::gradient_scale::gradient_bound;
use objectives::{RatePrecision, SimDinoConfig, StepContext};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Returns numbers in [-1, 1) from a linear congruential generator with this seed.
fn noise(seed: u64, shape: &[i64]) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    };
    let numbers: Vec<f64> = (0..count).map(|_| next()).collect();
    Tensor::from_slice(&numbers).reshape(shape)
}

fn unit_rows(seed: u64, shape: &[i64]) -> Tensor {
    let x = noise(seed, shape);
    &x / x.square().sum_dim_intlist(-1, true, Kind::Double).sqrt()
}

/// Computes `1/2 logdet(I + alpha Z^T Z)`, always on the side of the width, through autograd.
fn by_autograd(z: &Tensor, alpha: f64) -> (Tensor, Tensor) {
    let z = z.detach().copy().set_requires_grad(true);
    let d = z.size()[1];
    let matrix = Tensor::eye(d, (z.kind(), z.device())) + z.transpose(0, 1).matmul(&z) * alpha;
    let lower = matrix.linalg_cholesky(false);
    let value = lower.diagonal(0, 0, 1).log().sum(z.kind());
    value.backward();
    (value.detach(), z.grad())
}

const SHAPES: [[i64; 2]; 4] = [[8, 32], [16, 16], [48, 8], [1, 4]];

#[test]
fn closed_form_is_autograd_through_cholesky_on_either_side() {
    for [n, d] in SHAPES {
        for alpha in [0.1, 10.0, 300.0] {
            let z = unit_rows(1, &[n, d]);
            let (value, gradient) = by_autograd(&z, alpha);
            let rate = coding_rate(&z, alpha, RatePrecision::Fp64).unwrap();
            assert!(relative(&rate.value.get(0), &value) < 1e-10);
            assert!(relative(&rate.gradient, &gradient) < 1e-10);
            let rate = coding_rate(&z.to_kind(Kind::Float), alpha, RatePrecision::Fp32).unwrap();
            assert!(relative(&rate.value.get(0), &value) < 1e-6);
            // The larger alpha C is, the fewer digits of the identity are kept.
            assert!(relative(&rate.gradient, &gradient) < 1e-5 * f64::max(1.0, alpha / 100.0));
        }
    }
}

#[test]
fn gradient_agrees_with_finite_differences() {
    for [n, d] in [[3, 6], [4, 4], [7, 3]] {
        let z = noise(2, &[n, d]);
        let value =
            |z: &Tensor| number(&coding_rate(z, 4.0, RatePrecision::Fp64).unwrap().value.get(0));
        let gradient = coding_rate(&z, 4.0, RatePrecision::Fp64).unwrap().gradient;
        for i in 0..n * d {
            let shifted = |step: f64| {
                let moved = z.copy();
                let _ = moved.view([-1]).get(i).f_add_scalar_(step).unwrap();
                value(&moved)
            };
            let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
            let analytic = number(&gradient.reshape([-1]).get(i));
            assert!((numeric - analytic).abs() < 1e-8, "{numeric} {analytic}");
        }
    }
}

#[test]
fn many_groups_are_each_one_alone() {
    let z = noise(3, &[5, 6, 10]);
    let together = coding_rate(&z, 2.0, RatePrecision::Fp64).unwrap();
    assert_eq!(together.value.size(), [5]);
    assert_eq!(together.gradient.size(), [5, 6, 10]);
    for group in 0..5 {
        let alone = coding_rate(&z.get(group), 2.0, RatePrecision::Fp64).unwrap();
        assert_eq!(alone.value.size(), [1]);
        assert_eq!(alone.gradient.size(), [6, 10]);
        assert!(relative(&together.value.get(group), &alone.value.get(0)) < 1e-14);
        assert!(relative(&together.gradient.get(group), &alone.gradient) < 1e-13);
    }
}

#[test]
fn the_surrogate_composes_with_what_comes_before() {
    // Through a normalization and a linear map, as in a head.
    let inputs = noise(4, &[3, 12, 5]);
    let weight = noise(5, &[5, 8]).set_requires_grad(true);
    let teacher = unit_rows(6, &[2, 12, 8]);
    let features = |weight: &Tensor| {
        let x = inputs.matmul(weight);
        &x / x.square().sum_dim_intlist(-1, true, Kind::Double).sqrt()
    };
    let config = SimDinoConfig {
        rate_groups: 3,
        coeff: 0.0,
        precision: RatePrecision::Fp64,
        ..SimDinoConfig::default()
    };
    let ctx = StepContext::first(12);
    let out = simdino(&config, &features(&weight), &teacher, ctx).unwrap();
    out.loss.backward();
    let closed = weight.grad().copy();

    let weight = weight.detach().copy().set_requires_grad(true);
    let mean = (features(&weight).narrow(0, 0, 2) + &teacher) * 0.5;
    let groups = mean.reshape([6, 4, 8]);
    let alpha = 8.0 / (12.0 * 0.05);
    let matrix = groups.transpose(1, 2).matmul(&groups) * alpha
        + Tensor::eye(8, (Kind::Double, Device::Cpu));
    let rates = matrix.linalg_cholesky(false).diagonal(0, 1, 2).log();
    let value = rates.sum(Kind::Double) * (-out.gamma / 6.0);
    value.backward();
    assert!(relative(&out.loss, &value.detach()) < 1e-12);
    assert!(relative(&closed, &weight.grad()) < 1e-10);
}

#[test]
fn the_bound_of_theorem_3_1_is_reached() {
    let alpha = 7.0;
    for [n, d] in SHAPES {
        // Singular values all 1 / sqrt(alpha).
        let (q, _) = Tensor::linalg_qr(&noise(7, &[n.max(d), n.min(d)]), "reduced");
        let q = if n < d { q.transpose(0, 1) } else { q };
        let z = q / f64::sqrt(alpha);
        let gradient = coding_rate(&z, alpha, RatePrecision::Fp64).unwrap().gradient;
        let bound = gradient_bound(alpha, n as usize, d as usize);
        assert!((number(&gradient.norm()) - bound).abs() < 1e-10 * bound);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_theorem_bounds_the_gradient(
        seed in any::<u64>(), n in 1i64..40, d in 1i64..24, eps in 0.01f64..3.0, scale in 0.01f64..10.0,
    ) {
        let alpha = d as f64 / (n as f64 * eps * eps);
        let z = noise(seed, &[n, d]) * scale;
        let gradient = coding_rate(&z, alpha, RatePrecision::Fp64).unwrap().gradient;
        let norm = number(&gradient.norm());
        prop_assert!(norm <= gradient_bound(alpha, n as usize, d as usize) * (1.0 + 1e-9));
        let gamma = eps * (n as f64 / (d * n.min(d)) as f64).sqrt();
        prop_assert!(gamma * norm <= 0.5 * (1.0 + 1e-9));
    }

    #[test]
    fn rotations_change_nothing(seed in any::<u64>(), rows in 2i64..9, d in 2i64..20) {
        let (q, _) = Tensor::linalg_qr(&noise(seed, &[d, d]), "reduced");
        let student = unit_rows(seed ^ 1, &[4, 3 * rows, d]);
        let teacher = unit_rows(seed ^ 2, &[2, 3 * rows, d]);
        let config = SimDinoConfig {
            rate_groups: 3, precision: RatePrecision::Fp64, ..SimDinoConfig::default()
        };
        let ctx = StepContext::first(3 * rows as usize);
            let plain = simdino(&config, &student, &teacher, ctx).unwrap();
        let turned = simdino(&config, &student.matmul(&q), &teacher.matmul(&q), ctx).unwrap();
        for (a, b) in [(plain.compression, turned.compression), (plain.expansion, turned.expansion)] {
            prop_assert!((number(&a) - number(&b)).abs() < 1e-11);
        }
    }
}
