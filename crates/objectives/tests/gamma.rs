//! The weight of the coding rate: the promise of each rule, and Theorem 3.1, on which one of them
//! is based.

#![allow(clippy::unwrap_used)]

mod common;

use common::{number, simdino};
use objectives::gradient_scale::{GradientScale, gamma_theorem};
use objectives::simdino::SimDinoLoss;
use objectives::{
    EpsSemantics, ExpaSource, Gamma, Inputs, Objective, Outputs, RatePrecision, SimDinoConfig,
    StepContext,
};
use tch::{Kind, Tensor};
use torch_ext::SingleProcess;

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Double, tch::Device::Cpu))
}

fn unit_rows(x: &Tensor) -> Tensor {
    x / x.square().sum_dim_intlist(-1, true, None).sqrt()
}

#[test]
fn ceiling_is_the_same_whatever_batch_groups_width_and_eps_are() {
    for (rate_groups, rows, d, eps) in [(8, 64, 256, 0.05), (2, 64, 256, 0.05), (1, 32, 8, 0.5)] {
        for eps_semantics in [EpsSemantics::Code, EpsSemantics::Paper, EpsSemantics::Relative] {
            let gamma = Gamma::Ceiling;
            let config = SimDinoConfig {
                rate_groups,
                eps,
                eps_semantics,
                gamma,
                ..SimDinoConfig::default()
            };
            let z = unit_rows(&random(&[2, rows, d]));
            let context = StepContext::first(rate_groups * rows as usize);
            let out = simdino(&config, &z, &z, context).unwrap();
            assert!((out.expansion_ceiling - 0.45).abs() < 1e-12, "{}", out.expansion_ceiling);
            assert!(number(&out.expansion) < 0.45);
        }
    }
    // The paper's run has this ceiling with the weight of the published code.
    let paper = SimDinoConfig::default();
    let z = unit_rows(&random(&[2, 64, 256]));
    let ceiling = simdino(&paper, &z, &z, StepContext::first(512)).unwrap().expansion_ceiling;
    assert!((ceiling - 0.45).abs() < 5e-4, "{ceiling}");
}

#[test]
fn a_relative_eps_makes_the_rate_independent_of_width_and_batch() {
    tch::manual_seed(5);
    let config = |rate_groups| SimDinoConfig {
        rate_groups,
        eps: 0.025,
        eps_semantics: EpsSemantics::Relative,
        gamma: Gamma::Constant(1.0),
        precision: RatePrecision::Fp64,
        ..SimDinoConfig::default()
    };
    let of = |z: &Tensor, rate_groups: usize| {
        let context = StepContext::first(z.size()[1] as usize);
        simdino(&config(rate_groups), z, z, context).unwrap()
    };
    let z = unit_rows(&random(&[2, 16, 24]));
    let narrow = of(&z, 1);
    // The definition: evenly spread features have 1 / 0.025 times the variance of the noise.
    assert!((narrow.expansion_ceiling - 8.0 * 41f64.ln()).abs() < 1e-9);
    let wide = of(&z.constant_pad_nd([0, 1000]), 1);
    let twice = of(&Tensor::cat(&[&z, &z], 1), 2);
    for other in [wide, twice] {
        assert!((number(&other.expansion) - number(&narrow.expansion)).abs() < 1e-9);
        assert!((other.expansion_floor - narrow.expansion_floor).abs() < 1e-9);
        assert!((other.expansion_ceiling - narrow.expansion_ceiling).abs() < 1e-9);
    }
    // With more rows than columns, the rate is that of the published code.
    let tall = unit_rows(&random(&[2, 48, 8]));
    let code = SimDinoConfig { eps_semantics: EpsSemantics::Code, ..config(1) };
    let code = simdino(&code, &tall, &tall, StepContext::first(48)).unwrap();
    assert!((number(&of(&tall, 1).expansion) - number(&code.expansion)).abs() < 1e-9);
}

/// Draws one of several kinds of features, some of them near the bound.
fn draw(i: i64, n: i64, d: i64, eps: f64) -> Tensor {
    let alpha = d as f64 / (n as f64 * eps * eps);
    let scale = 10f64.powf((i / 7 % 13) as f64 / 2.0 - 3.0);
    match i % 7 {
        0 => random(&[n, d]) * scale,
        1 => unit_rows(&random(&[n, d])),
        2 => random(&[1, d]).expand([n, d], false) * scale, // one direction
        3 => {
            let (q, _) = Tensor::linalg_qr(&random(&[n.max(d), n.min(d)]), "reduced");
            let q = if n < d { q.tr() } else { q };
            q / alpha.sqrt() // reaches the bound
        }
        4 => {
            let (q, _) = Tensor::linalg_qr(&random(&[n.max(d), n.min(d)]), "reduced");
            let q = if n < d { q.tr() } else { q };
            q * (1.0 + 0.1 * random(&[1, d])) / alpha.sqrt() // near it
        }
        5 => random(&[n, 1]).matmul(&random(&[1, d])) * scale, // rank 1
        _ => random(&[n, d]).sign() * scale,                   // corners of a cube
    }
}

#[test]
fn the_bound_of_theorem_3_1_holds_in_ten_thousand_draws() {
    tch::manual_seed(31);
    let (mut closest, mut rates) = (0f64, 0);
    for i in 0..10_000 {
        let (n, d) = (1 + i * 7 % 33, 1 + i * 5 % 23);
        let eps = [0.05, 0.2236, 0.5, 1.0, 3.0][(i % 5) as usize];
        let z = draw(i, n, d, eps);
        let scale = GradientScale::measure(&z, eps).unwrap();
        let share = scale.norm / scale.bound;
        assert!(share <= 1.0 + 1e-9, "draw {i}, {n} x {d}, eps {eps}: {share}");
        let gamma = gamma_theorem(eps, n as usize, d as usize);
        assert!(gamma * scale.norm <= 0.5 * (1.0 + 1e-9));
        closest = closest.max(share);
        if i % 7 == 1 {
            // Unit rows: the rate lies between its closed forms.
            assert!(scale.floor <= scale.rate * (1.0 + 1e-9) + 1e-12);
            assert!(scale.rate <= scale.ceiling * (1.0 + 1e-9) + 1e-12);
            rates += 1;
        }
    }
    assert!((closest - 1.0).abs() < 1e-9, "the draws must reach the bound: {closest}");
    assert!(rates > 1000);
}

fn inputs<'a>(student: &'a Outputs, teacher: &'a Outputs, batch: usize) -> Inputs<'a> {
    let context = StepContext::first(batch);
    Inputs { student, teacher, masked: None, context, collective: &SingleProcess, deferred: None }
}

/// Returns the gradient norms of the similarity and of the coding rate on the student's rows,
/// counting only the parts that rotate them.
fn pulls(config: &SimDinoConfig, student: &Tensor, teacher: &Tensor, batch: usize) -> (f64, f64) {
    let pull = |coeff: f64, gamma: f64| {
        let gamma = Gamma::Constant(gamma);
        let config = SimDinoConfig { coeff, gamma, ..config.clone() };
        let z = student.copy().set_requires_grad(true);
        // The normalization removes the part of the gradient along each row.
        let out = simdino(&config, &unit_rows(&z), teacher, StepContext::first(batch)).unwrap();
        out.loss.backward();
        number(&z.grad().norm())
    };
    (pull(1.0, 1e-300), pull(0.0, 1.0))
}

#[test]
fn balance_measures_what_autograd_says_and_keeps_the_proportion() {
    tch::manual_seed(7);
    let sources = [ExpaSource::Student, ExpaSource::MeanStudentTeacher];
    for (expa_source, views) in [(sources[0], 5), (sources[1], 5), (sources[1], 1)] {
        let config = SimDinoConfig {
            rate_groups: 2,
            gamma: Gamma::Balanced,
            gamma_balance: 0.7,
            coeff: 1.5,
            expa_source,
            precision: RatePrecision::Fp64,
            ..SimDinoConfig::default()
        };
        let (s, t) = (unit_rows(&random(&[views, 12, 8])), unit_rows(&random(&[2, 12, 8])));
        let (of_views, of_rate) = pulls(&config, &s, &t, 12);
        let (student, teacher) = (Outputs::of_cls(s), Outputs::of_cls(t));
        let mut loss = SimDinoLoss::new(&config).unwrap();
        let first = loss.evaluate(&inputs(&student, &teacher, 12)).unwrap();
        let gamma = first.value("rate/gamma").unwrap();
        let ceiling = SimDinoConfig { gamma: Gamma::Ceiling, ..config.clone() };
        let ceiling = SimDinoLoss::new(&ceiling).unwrap();
        let of_ceiling = ceiling.evaluate(&inputs(&student, &teacher, 12)).unwrap();
        assert_eq!(gamma, of_ceiling.value("rate/gamma").unwrap());

        let logged = first.value("rate/proportion").unwrap();
        assert!((logged * config.coeff * of_views / (gamma * of_rate) - 1.0).abs() < 1e-9);
        loss.update(&first.statistics, &SingleProcess).unwrap();
        let moved = number(&loss.state()[0].1);
        let measured = gamma * of_rate / (config.coeff * of_views);
        let want = gamma * (0.01 * (0.7 / measured).ln()).clamp(-0.05, 0.05).exp();
        assert!((moved / want - 1.0).abs() < 1e-9, "{moved} {want}");

        // On features that do not change, it settles at the requested proportion.
        for _ in 0..1500 {
            let output = loss.evaluate(&inputs(&student, &teacher, 12)).unwrap();
            loss.update(&output.statistics, &SingleProcess).unwrap();
        }
        let settled = number(&loss.state()[0].1) * of_rate / (config.coeff * of_views);
        assert!((settled - 0.7).abs() < 1e-3, "{settled}");
    }
}

#[test]
fn balance_stays_where_nothing_pulls() {
    let config = SimDinoConfig { rate_groups: 1, gamma: Gamma::Balanced, ..Default::default() };
    let mut loss = SimDinoLoss::new(&config).unwrap();
    let same = Tensor::eye(4, (Kind::Double, tch::Device::Cpu)).narrow(0, 0, 1);
    let same = same.unsqueeze(0).expand([2, 6, 4], false);
    let (student, teacher) = (Outputs::of_cls(same.copy()), Outputs::of_cls(same));
    let output = loss.evaluate(&inputs(&student, &teacher, 6)).unwrap();
    loss.update(&output.statistics, &SingleProcess).unwrap();
    let gamma = number(&loss.state()[0].1);
    assert!((gamma / output.value("rate/gamma").unwrap() - 1.0).abs() < 1e-12);
}
