//! Properties of the SimDINO loss that follow from its definition: closed forms of its floor and
//! ceiling, invariances, and the meaning of a group.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use common::number;
use objectives::gradient_scale::{rate_ceiling, rate_floor};
use objectives::simdino::SimDinoOutput;
use objectives::{ExpaSource, Gamma, LossForm, RatePrecision, SimDinoConfig, StepContext};
use tch::{Device, Kind, Tensor};

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);
const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Returns rows of norm 1 without structure, the same in every run.
fn unit_rows(shape: [i64; 3], seed: f64, options: (Kind, Device)) -> Tensor {
    let count: i64 = shape.iter().product();
    let angles = (Tensor::arange(count, DOUBLE) + 1.0) * (12.9898 + seed);
    let noise = (angles.sin() * 43_758.545_3).frac() - 0.5;
    normalized(&noise.reshape(shape)).to_kind(options.0)
}

fn normalized(x: &Tensor) -> Tensor {
    x / x.square().sum_dim_intlist(-1, true, x.kind()).sqrt()
}

fn loss(
    config: &SimDinoConfig,
    student: &Tensor,
    teacher: &Tensor,
    ctx: StepContext,
) -> SimDinoOutput {
    common::simdino(config, student, teacher, ctx).unwrap()
}

/// Groups of the run, rows of a group, eps, expected floor and ceiling to four digits.
type Row = (usize, usize, f64, f64, f64);

/// Width 256. The first row is the published run of SimDINO, the fourth that of SimDINOv2.
const TABLE: [Row; 8] = [
    (8, 64, 0.05, 0.0189, 0.4496),
    (1, 512, 0.05, 0.0250, 2.2834),
    (8, 64, 0.5, 0.0122, 0.1300),
    (8, 128, 0.05, 0.0158, 0.5599),
    (2, 256, 0.05, 0.0230, 1.7984),
    (1, 32, 0.05, 0.1501, 2.8583),
    (1, 24, 0.05, 0.1946, 2.9354),
    (32, 78, 0.05, 0.0109, 0.1874),
];

/// Returns the rows of one rate group for each view: one row repeated, or the unit vectors in turn.
fn extreme_rows(rows: i64, spread: bool) -> Tensor {
    let eye = Tensor::eye(256, FLOAT);
    let index = Tensor::arange(rows, (Kind::Int64, Device::Cpu)).remainder(256);
    let index = if spread { index } else { index.zeros_like() };
    eye.index_select(0, &index).unsqueeze(0).expand([2, -1, -1], false)
}

#[test]
fn equal_rows_reach_the_floor_and_orthonormal_rows_the_ceiling() {
    for (groups, rows, eps, low, high) in TABLE {
        let config = SimDinoConfig { eps, rate_groups: groups, ..SimDinoConfig::default() };
        let ctx = StepContext::first(groups * rows);
        for spread in [false, true] {
            let z = extreme_rows(rows as i64, spread);
            let out = loss(&config, &z, &z, ctx);
            let (want, printed) =
                if spread { (out.expansion_ceiling, high) } else { (out.expansion_floor, low) };
            let got = number(&out.expansion);
            assert!((got - want).abs() < 1e-6, "{groups}x{rows}: {got} {want}");
            assert!((want - printed).abs() < 5.1e-5, "{groups}x{rows}: {want} {printed}");
        }
    }
}

#[test]
fn floor_and_ceiling_bracket_ordinary_features() {
    let z = unit_rows([4, 64, 32], 0.3, FLOAT);
    let out = loss(&SimDinoConfig::default(), &z, &z.narrow(0, 0, 2), StepContext::first(64));
    let (gamma, alpha) = (1.0 / 64.0 + 1.0 / 32.0, 32.0 / (64.0 * 0.05));
    assert!((out.gamma - gamma).abs() < 1e-15);
    assert_eq!(out.expansion_floor, gamma * rate_floor(alpha, 8));
    assert_eq!(out.expansion_ceiling, gamma * rate_ceiling(alpha, 8, 32));
    let expansion = number(&out.expansion);
    assert!(out.expansion_floor < expansion && expansion < out.expansion_ceiling);
}

#[test]
fn centered_features_have_their_own_floor_and_ceiling() {
    let config = SimDinoConfig { center_cov: true, rate_groups: 1, ..SimDinoConfig::default() };
    let same = extreme_rows(16, false);
    let out = loss(&config, &same, &same, StepContext::first(16));
    assert_eq!((number(&out.expansion), out.expansion_floor), (0.0, 0.0));
    // The corners of a simplex: after centering they spread evenly over 15 directions.
    let corners = Tensor::eye(16, DOUBLE) - 1.0 / 16.0;
    let corners = normalized(&corners).to_kind(Kind::Float).unsqueeze(0).expand([2, -1, -1], false);
    let out = loss(&config, &corners, &corners, StepContext::first(16));
    assert!((number(&out.expansion) - out.expansion_ceiling).abs() < 1e-6);
}

#[test]
fn identical_features_have_compression_one_exactly() {
    for views in [2, 10, 12] {
        let z = extreme_rows(8, false).narrow(0, 0, 1).expand([views, -1, -1], false);
        for loss_form in [LossForm::NegCos, LossForm::HalfSqL2] {
            let config = SimDinoConfig { loss_form, rate_groups: 2, ..SimDinoConfig::default() };
            let out = loss(&config, &z, &z.narrow(0, 0, 2), StepContext::first(8));
            assert_eq!(number(&out.compression), 1.0, "{views} views");
        }
    }
}

#[test]
fn compression_counts_each_pair_of_different_views_once() {
    // Student views point along their own axis; the teacher's along 1 and 0: of the 2V - 2 pairs,
    // exactly the two across the global views agree.
    for (views, terms) in [(10, 18.0), (12, 22.0)] {
        let student = Tensor::eye(16, FLOAT).narrow(0, 0, views).unsqueeze(1);
        let student = student.expand([-1, 2, -1], false); // [V, 2, 16]
        let teacher = student.narrow(0, 0, 2).flip([0]);
        let config = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
        let out = loss(&config, &student, &teacher, StepContext::first(2));
        assert!((number(&out.compression) - 2.0 / terms).abs() < 1e-7);
        // The same view of both would agree, too, but that pair does not count.
        let out = loss(&config, &student, &student.narrow(0, 0, 2), StepContext::first(2));
        assert_eq!(number(&out.compression), 0.0);
    }
}

#[test]
fn the_paper_form_is_one_more_than_the_code_form() {
    let student = unit_rows([5, 16, 24], 0.1, FLOAT);
    let teacher = unit_rows([2, 16, 24], 0.2, FLOAT);
    let mut losses = [LossForm::NegCos, LossForm::HalfSqL2].map(|loss_form| {
        let config = SimDinoConfig { loss_form, ..SimDinoConfig::default() };
        number(&loss(&config, &student, &teacher, StepContext::first(16)).loss)
    });
    losses[0] += 1.0;
    assert!((losses[0] - losses[1]).abs() < 1e-6);
}

/// Returns the loss and the student's gradient.
fn with_gradient(
    config: &SimDinoConfig,
    s: &Tensor,
    t: &Tensor,
    ctx: StepContext,
) -> (f64, Tensor) {
    let s = s.copy().set_requires_grad(true);
    let out = loss(config, &s, t, ctx);
    out.loss.backward();
    (number(&out.loss), s.grad())
}

#[test]
fn groups_on_one_process_are_the_mean_of_processes() {
    let (world, rows) = (4usize, 6i64);
    let batch = world as i64 * rows;
    for center_cov in [false, true] {
        let config = SimDinoConfig { rate_groups: world, center_cov, ..SimDinoConfig::default() };
        let s = unit_rows([5, batch, 16], 0.4, FLOAT);
        let t = unit_rows([2, batch, 16], 0.5, FLOAT);
        let (whole, gradient) = with_gradient(&config, &s, &t, StepContext::first(batch as usize));
        let mut mean = 0.0;
        for rank in 0..world as i64 {
            let own = |x: &Tensor| x.narrow(1, rank * rows, rows);
            let ctx = StepContext::first(batch as usize);
            let (value, of_rank) = with_gradient(&config, &own(&s), &own(&t), ctx);
            mean += value / world as f64;
            let difference = (own(&gradient) - of_rank / world as f64).abs().max();
            assert!(number(&difference) < 1e-7);
        }
        assert!((whole - mean).abs() < 1e-6, "{whole} {mean}");
    }
}

#[test]
fn accumulated_micro_batches_are_the_whole_batch() {
    let config =
        SimDinoConfig { rate_groups: 8, gamma: Gamma::Theorem, ..SimDinoConfig::default() };
    let s = unit_rows([3, 32, 16], 0.6, FLOAT);
    let t = unit_rows([2, 32, 16], 0.7, FLOAT);
    let whole = number(&loss(&config, &s, &t, StepContext::first(32)).loss);
    let half = |i: i64| {
        let own = |x: &Tensor| x.narrow(1, i * 16, 16);
        number(&loss(&config, &own(&s), &own(&t), StepContext::first(32)).loss)
    };
    assert!((whole - (half(0) + half(1)) / 2.0).abs() < 1e-6);
}

fn double_config(expa_source: ExpaSource) -> SimDinoConfig {
    let precision = RatePrecision::Fp64;
    SimDinoConfig { rate_groups: 2, expa_source, precision, ..SimDinoConfig::default() }
}

#[test]
fn gradient_agrees_with_finite_differences() {
    for expa_source in [ExpaSource::Student, ExpaSource::MeanStudentTeacher] {
        for center_cov in [false, true] {
            let config = SimDinoConfig { center_cov, ..double_config(expa_source) };
            let s = unit_rows([3, 6, 4], 0.8, DOUBLE);
            let t = unit_rows([2, 6, 4], 0.9, DOUBLE);
            let (_, gradient) = with_gradient(&config, &s, &t, StepContext::first(6));
            let gradient = Vec::<f64>::try_from(gradient.reshape([-1])).unwrap();
            for (i, analytic) in gradient.iter().enumerate().step_by(5) {
                let shifted = |step: f64| {
                    let moved = s.copy();
                    let _ = moved.view([-1]).get(i as i64).f_add_scalar_(step).unwrap();
                    number(&loss(&config, &moved, &t, StepContext::first(6)).loss)
                };
                let numeric = (shifted(1e-5) - shifted(-1e-5)) / 2e-5;
                assert!((analytic - numeric).abs() < 1e-8, "{i}: {analytic} {numeric}");
            }
        }
    }
}

#[test]
fn no_gradient_reaches_the_teacher() {
    let config = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    let s = unit_rows([3, 8, 8], 0.1, FLOAT).set_requires_grad(true);
    let t = unit_rows([2, 8, 8], 0.2, FLOAT).set_requires_grad(true);
    loss(&config, &s, &t, StepContext::first(8)).loss.backward();
    assert!(!t.grad().defined());
    assert!(number(&s.grad().abs().sum(Kind::Float)) > 0.0);
}

#[test]
fn local_views_are_compressed_but_not_expanded() {
    let s = unit_rows([4, 8, 8], 0.3, FLOAT);
    let t = unit_rows([2, 8, 8], 0.4, FLOAT);
    let usual = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    let coeff_0 = SimDinoConfig { coeff: 0.0, ..usual.clone() };
    let (_, gradient) = with_gradient(&coeff_0, &s, &t, StepContext::first(8));
    assert_eq!(number(&gradient.narrow(0, 2, 2).abs().max()), 0.0);
    assert!(number(&gradient.narrow(0, 0, 2).abs().max()) > 0.0);
    let (_, gradient) = with_gradient(&usual, &s, &t, StepContext::first(8));
    assert!(number(&gradient.narrow(0, 2, 2).abs().max()) > 0.0);
}

#[test]
fn eps_and_coeff_follow_their_cosines() {
    let config = SimDinoConfig {
        eps: 0.5,
        eps_end: Some(0.1),
        coeff: 1.0,
        coeff_end: Some(3.0),
        rate_groups: 1,
        ..SimDinoConfig::default()
    };
    let z = unit_rows([2, 4, 4], 0.5, FLOAT);
    let at = |progress| {
        let out = loss(&config, &z, &z, StepContext { progress, ..StepContext::first(4) });
        (out.eps, out.coeff)
    };
    assert_eq!(at(0.0), (0.5, 1.0));
    let (eps, coeff) = at(0.5);
    assert!((eps - 0.3).abs() < 1e-12 && (coeff - 2.0).abs() < 1e-12);
    assert_eq!(at(1.0), (0.1, 3.0));
}

#[test]
fn half_precision_features_under_autocast_are_computed_in_single() {
    let s = unit_rows([3, 16, 16], 0.6, (Kind::BFloat16, Device::Cpu));
    let t = unit_rows([2, 16, 16], 0.7, (Kind::BFloat16, Device::Cpu));
    let config = SimDinoConfig::default();
    let of = |s: &Tensor, t: &Tensor| number(&loss(&config, s, t, StepContext::first(16)).loss);
    let plain = of(&s.to_kind(Kind::Float), &t.to_kind(Kind::Float));
    let cast = torch_ext::autocast(Device::Cpu, Some(Kind::BFloat16), || of(&s, &t)).unwrap();
    assert_eq!(plain, cast);
}
