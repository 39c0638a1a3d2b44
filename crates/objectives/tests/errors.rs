//! Which inputs are refused, with which messages, and the consequences of a failed factorization.

#![allow(clippy::unwrap_used)]

mod common;

use common::{coding_rate, simdino};
use objectives::simdino::SimDinoLoss;
use objectives::simdinov2::SimDinoV2Loss;
use objectives::{
    CoeffRule, Deferred, Error, Gamma, IbotConfig, Inputs, KoleoConfig, Objective, Outputs,
    RatePrecision, SimDinoConfig, StepContext,
};
use tch::{Device, Kind, Tensor};
use torch_ext::SingleProcess;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn rows(shape: [i64; 3]) -> Tensor {
    let count: i64 = shape.iter().product();
    let x = (Tensor::arange(count, FLOAT).square() * 0.37).sin().reshape(shape);
    &x / x.square().sum_dim_intlist(-1, true, Kind::Float).sqrt()
}

fn refused(student: &Tensor, teacher: &Tensor, ctx: StepContext) -> Error {
    let config = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    simdino(&config, student, teacher, ctx).unwrap_err()
}

const CTX: StepContext = StepContext { step: 1, steps_per_epoch: 2, progress: 0.5, batch_size: 8 };

#[test]
fn wrong_shapes_are_named() {
    let (s, t) = (rows([3, 8, 4]), rows([2, 8, 4]));
    let flat = refused(&s.reshape([24, 4]), &t, CTX);
    assert_eq!(flat.to_string(), "student features must have shape [V, B, d] (got [24, 4])");
    let teacher = refused(&s, &rows([3, 8, 4]), CTX);
    assert_eq!(
        teacher.to_string(),
        "teacher features must have shape [2, 8, 4], to match the student's (got [3, 8, 4])"
    );
    let none = refused(&s.narrow(0, 0, 0), &t, CTX);
    assert!(none.to_string().contains("all sizes at least 1"), "{none}");
    let integers = s.to_kind(Kind::Int64);
    assert!(matches!(refused(&integers, &t, CTX), Error::Kind { .. }));
}

#[test]
fn batches_that_do_not_split_are_refused() {
    let of = |batch: i64, ctx| refused(&rows([3, batch, 4]), &rows([2, batch, 4]), ctx);
    let odd = of(8, StepContext { batch_size: 7, ..CTX });
    assert_eq!(odd.to_string(), "the batch size 7 must be a multiple of simdino.rate_groups 2");
    assert!(matches!(of(8, StepContext { batch_size: 0, ..CTX }), Error::Groups { .. }));
    assert!(matches!(of(0, CTX), Error::Shape { .. }));
    let partial = of(6, CTX);
    assert_eq!(
        partial.to_string(),
        "the batch size 6 is not a multiple of the 4 images per group, which simdino.rate_groups \
         determines"
    );
}

#[test]
fn groups_of_one_image_are_refused_where_their_rate_must_move() {
    for (rate_groups, batch) in [(8, 8), (1, 1)] {
        for (center_cov, coeff_rule) in [(true, CoeffRule::Scheduled), (false, CoeffRule::Held)] {
            let config =
                SimDinoConfig { rate_groups, center_cov, coeff_rule, ..SimDinoConfig::default() };
            let context = StepContext { batch_size: batch as usize, ..CTX };
            let error =
                simdino(&config, &rows([3, batch, 4]), &rows([2, batch, 4]), context).unwrap_err();
            let text = error.to_string();
            assert!(text.starts_with("a rate group needs at least 2 images (got"), "{text}");
        }
    }
}

#[test]
fn the_group_of_another_term_is_named_by_its_key() {
    let koleo = KoleoConfig { loss_weight: 0.1, groups: 3 };
    let ibot = IbotConfig { loss_weight: 0.0 };
    let config = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    let loss = SimDinoV2Loss::new(&config, &ibot, &koleo).unwrap();
    let of = |views: i64, backbone| Outputs { backbone, ..Outputs::of_cls(rows([views, 8, 4])) };
    let inputs = Inputs {
        student: &of(3, Some(rows([2, 8, 4]))),
        teacher: &of(2, None),
        masked: None,
        context: CTX,
        collective: &SingleProcess,
        deferred: None,
    };
    let error = loss.evaluate(&inputs).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "the batch size 8 must be a multiple of koleo.groups 3");
}

#[test]
fn where_floor_and_ceiling_meet_no_position_is_given() {
    for (eps, width, rate_groups, there) in
        [(0.05, 4, 2, true), (1e9, 4, 2, false), (1e300, 4, 2, false), (0.05, 1, 2, false)]
    {
        let config = SimDinoConfig { eps, rate_groups, ..SimDinoConfig::default() };
        let of = |views| match width {
            1 => Tensor::ones([views, 8, 1], FLOAT),
            _ => rows([views, 8, width]),
        };
        let output = simdino(&config, &of(3), &of(2), CTX).unwrap();
        let position = output.into_output().value("rate/position");
        assert_eq!(position.is_some_and(f64::is_finite), there, "{eps}: {position:?}");
        assert_eq!(position.is_some(), there, "{eps}: {position:?}");
    }
}

#[test]
fn progress_outside_the_run_is_refused() {
    for progress in [-0.1, 1.1, f64::NAN] {
        let error = refused(&rows([2, 8, 4]), &rows([2, 8, 4]), StepContext { progress, ..CTX });
        assert!(matches!(error, Error::Number { what: "progress", .. }));
    }
}

#[test]
fn wrong_configurations_are_refused_all_at_once() {
    let config =
        SimDinoConfig { eps: 0.0, gamma: Gamma::Constant(-1.0), ..SimDinoConfig::default() };
    let error = SimDinoLoss::new(&config).unwrap_err().to_string();
    assert!(error.contains("eps: ") && error.contains("gamma: "), "{error}");
}

/// Returns rows of this shape with one number of a view replaced.
fn spoiled(shape: [i64; 3], view: i64, value: f64) -> Tensor {
    let x = rows(shape);
    let _ = x.get(view).get(5).get(1).fill_(value);
    x
}

#[test]
fn features_that_are_not_finite_are_named_by_term_and_view() {
    let (s, t) = (rows([3, 8, 4]), rows([2, 8, 4]));
    let words = |s: &Tensor, t: &Tensor| refused(s, t, CTX).to_string();
    assert_eq!(
        words(&spoiled([3, 8, 4], 1, f64::NAN), &t),
        "expansion: student features of view 1 contain a value that is not finite"
    );
    assert_eq!(
        words(&spoiled([3, 8, 4], 2, f64::INFINITY), &t),
        "compression: student features of view 2 contain a value that is not finite"
    );
    assert_eq!(
        words(&s, &spoiled([2, 8, 4], 0, f64::NAN)),
        "expansion: teacher features of view 0 contain a value that is not finite"
    );
}

/// Returns the loss with all checks deferred, and the values that were noted instead.
fn deferred(config: &SimDinoConfig, student: &Tensor, teacher: &Tensor) -> (f64, Vec<f64>) {
    let noted = Deferred::default();
    let batch = student.size()[1] as usize;
    let output = SimDinoLoss::new(config).unwrap().forward(&Inputs {
        student: &Outputs::of_cls(student.shallow_clone()),
        teacher: &Outputs::of_cls(teacher.shallow_clone()),
        masked: None,
        context: StepContext::first(batch),
        collective: &SingleProcess,
        deferred: Some(&noted),
    });
    let noted = Vec::try_from(Tensor::cat(&noted.into_numbers(), 0)).unwrap();
    (output.unwrap().loss.double_value(&[]), noted)
}

#[test]
fn what_is_not_looked_at_is_noted() {
    let config = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    let (s, t) = (rows([3, 8, 4]), rows([2, 8, 4]));
    let all_finite = |noted: &[f64]| noted.iter().all(|number| number.is_finite());
    let (loss, noted) = deferred(&config, &s, &t);
    let at_once = simdino(&config, &s, &t, StepContext::first(8)).unwrap();
    assert_eq!(loss, at_once.loss.double_value(&[]));
    assert!(all_finite(&noted) && noted.len() == 5, "4 groups and the similarity: {noted:?}");
    for (s, t) in [
        (spoiled([3, 8, 4], 1, f64::NAN), t.shallow_clone()),
        (spoiled([3, 8, 4], 2, f64::INFINITY), t.shallow_clone()),
        (s.shallow_clone(), spoiled([2, 8, 4], 0, f64::NAN)),
    ] {
        assert!(!all_finite(&deferred(&config, &s, &t).1));
    }
    // Finite features whose coding rate needs a retry: deferred, that counts as not finite.
    let config = SimDinoConfig { rate_groups: 1, eps: 1e-9, ..SimDinoConfig::default() };
    let (s, t) = (rows([2, 140, 150]), rows([2, 140, 150]));
    let (s, t) = (s.narrow(1, 0, 1).expand_as(&s), t.narrow(1, 0, 1).expand_as(&t));
    let at_once = simdino(&config, &s, &t, StepContext::first(140)).unwrap();
    assert!(!at_once.events.is_clean());
    assert!(!all_finite(&deferred(&config, &s, &t).1));
}

#[test]
fn coding_rate_refuses_what_it_cannot_measure() {
    let z = rows([2, 8, 4]);
    let refused = |z: &Tensor, alpha| coding_rate(z, alpha, RatePrecision::Fp32).unwrap_err();
    assert!(matches!(refused(&z.get(0).get(0), 1.0), Error::Shape { .. }));
    assert!(matches!(refused(&Tensor::zeros([0, 4], FLOAT), 1.0), Error::Shape { .. }));
    assert!(matches!(refused(&z.to_kind(Kind::Int), 1.0), Error::Kind { .. }));
    assert!(matches!(refused(&z, 0.0), Error::Number { .. }));
    assert!(matches!(refused(&z, f64::NAN), Error::Number { .. }));
    assert_eq!(
        refused(&spoiled([2, 8, 4], 1, f64::NAN), 1.0).to_string(),
        "coding rate: features of group 1 contain a value that is not finite"
    );
}

/// Returns half the log-determinant in double precision, from the eigenvalues of `Z Z^T`.
fn exact(z: &Tensor, alpha: f64) -> f64 {
    let z = z.to_kind(Kind::Double);
    let gram = z.matmul(&z.transpose(0, 1)) * alpha;
    let (eigenvalues, _) = gram.linalg_eigh("L");
    f64::try_from(eigenvalues.clamp_min(0.0).log1p().sum(Kind::Double) * 0.5).unwrap()
}

#[test]
fn a_failed_factorization_is_retried_with_jitter_and_counted() {
    // Nearly equal rows that are so long that the identity is lost in rounding errors.
    let ordinary = rows([1, 6, 12]);
    let row = ordinary.narrow(1, 0, 1);
    let drowned = (row + ordinary.cos() * 1e-4) * 1e5;
    let z = Tensor::cat(&[&ordinary, &drowned, &ordinary], 0);
    let rate = coding_rate(&z, 1e3, RatePrecision::Fp32).unwrap();
    assert!(rate.events.jitter > 0 && !rate.events.is_clean(), "{:?}", rate.events);
    assert_eq!(rate.events.fp64, 0);
    assert!(f64::try_from(rate.value.isfinite().all()).unwrap() != 0.0);
    assert!(f64::try_from(rate.gradient.isfinite().all()).unwrap() != 0.0);
    // The other groups are not affected.
    let alone = coding_rate(&ordinary, 1e3, RatePrecision::Fp32).unwrap();
    for group in [0, 2] {
        assert_eq!(rate.value.get(group), alone.value.get(0));
        assert_eq!(rate.gradient.get(group), alone.gradient.get(0));
    }
}

#[test]
fn what_overflows_in_single_precision_is_computed_in_double() {
    let z = rows([1, 6, 12]) * 1e20;
    let rate = coding_rate(&z, 10.0, RatePrecision::Fp32).unwrap();
    assert_eq!((rate.events.jitter, rate.events.fp64), (2, 1));
    assert_eq!((rate.value.kind(), rate.gradient.kind()), (Kind::Float, Kind::Float));
    let got = f64::try_from(rate.value.get(0)).unwrap();
    let want = exact(&z.get(0), 10.0);
    assert!((got - want).abs() < 1e-4 * want, "{got} {want}");
}

#[test]
fn what_no_precision_can_factorize_is_an_error() {
    let z = rows([1, 6, 12]).to_kind(Kind::Double) * 1e200;
    let error = coding_rate(&z, 10.0, RatePrecision::Fp64).unwrap_err();
    assert!(matches!(error, Error::NotPositiveDefinite { .. }), "{error}");
    assert!(error.to_string().starts_with("coding rate: features of group 0"));
}
