//! When a run is reported as collapsed, and when it is not.

#![allow(clippy::unwrap_used)]

mod common;

use objectives::health::{CollapseDetector, Signals, spread};
use objectives::{DinoConfig, Inputs, Objective, Outputs, SimDinoConfig, StepContext};
use tch::{Device, Kind, Tensor};
use torch_ext::SingleProcess;

const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn signals(objective: &dyn Objective, student: Tensor, teacher: Tensor) -> Signals {
    let context = StepContext::first(student.size()[1] as usize);
    let (student, teacher) = (Outputs::of_cls(student), Outputs::of_cls(teacher));
    let inputs = Inputs {
        student: &student,
        teacher: &teacher,
        masked: None,
        context,
        collective: &SingleProcess,
        deferred: None,
    };
    let output = objective.evaluate(&inputs).unwrap();
    Signals::measure(&teacher, &output).unwrap()
}

fn simdino() -> objectives::simdino::SimDinoLoss {
    let config = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
    objectives::simdino::SimDinoLoss::new(&config).unwrap()
}

fn dino() -> objectives::dino::DinoLoss {
    objectives::dino::DinoLoss::new(&DinoConfig::default()).unwrap()
}

/// Returns the features of 16 images, in 16 directions or all in the first one.
fn features(views: i64, spread: bool) -> Tensor {
    let eye = Tensor::eye(16, FLOAT);
    let rows = if spread { eye } else { eye.narrow(0, 0, 1).expand([16, 16], false) };
    rows.unsqueeze(0).expand([views, 16, 16], false)
}

#[test]
fn spread_of_one_direction_of_all_and_of_two() {
    let (std, rank) = spread(&features(1, false).get(0)).unwrap();
    assert!(std < 1e-9 && (rank - 1.0).abs() < 1e-9, "{std} {rank}");
    let (std, rank) = spread(&features(1, true).get(0)).unwrap();
    assert!((std - (15f64 / 16.0).sqrt()).abs() < 1e-6 && (rank - 16.0).abs() < 1e-6);
    let two = Tensor::eye(5, FLOAT).narrow(0, 0, 2).repeat([6, 1]);
    assert!((spread(&two).unwrap().1 - 2.0).abs() < 1e-6);
    assert!(spread(&(two * f64::NAN)).is_err());
}

#[test]
fn collapsed_features_are_told_from_spread_ones() {
    let healthy = signals(&simdino(), features(4, true), features(2, true));
    assert_eq!(healthy.verdict(), None);
    assert!(healthy.rate_position.unwrap() > 0.99 && healthy.compression.unwrap() > 0.99);
    let collapsed = signals(&simdino(), features(4, false), features(2, false));
    let words = collapsed.verdict().unwrap();
    assert!(words.contains("nearly the same features") && words.contains("100.0%"), "{words}");
}

#[test]
fn both_collapses_of_prototypes_are_told_apart() {
    let uniform = Tensor::zeros([4, 16, 32], FLOAT);
    let words = signals(&dino(), uniform.shallow_clone(), uniform.narrow(0, 0, 2)).verdict();
    assert!(words.unwrap().contains("all prototypes the same probability"));
    let one = Tensor::cat(&[Tensor::ones([4, 16, 1], FLOAT), Tensor::zeros([4, 16, 31], FLOAT)], 2);
    let words = signals(&dino(), one.shallow_clone(), one.narrow(0, 0, 2)).verdict();
    assert!(words.unwrap().contains("all images the same prototype"));
    let different = features(4, true);
    let healthy = signals(&dino(), different.shallow_clone(), different.narrow(0, 0, 2));
    assert_eq!(healthy.verdict(), None);
}

#[test]
fn a_warning_comes_once_and_not_for_a_moment_or_at_the_start() {
    let uniform = Tensor::zeros([2, 16, 32], FLOAT);
    let bad = signals(&dino(), uniform.shallow_clone(), uniform);
    let good = signals(&dino(), features(2, true), features(2, true));
    let mut watch = CollapseDetector::default();
    // DINO starts at the loss of uniform guessing.
    assert!((0..9).all(|step| watch.observe(step, 0.001 * step as f64, &bad).is_none()));
    let mut watch = CollapseDetector::default();
    let looks = [&bad, &bad, &good, &bad, &bad, &bad, &bad, &bad];
    let raised: Vec<_> = (100..).zip(looks).filter_map(|(i, s)| watch.observe(i, 0.5, s)).collect();
    assert_eq!(raised.len(), 1, "{raised:?}");
    assert!(raised[0].starts_with("the training has collapsed: "));
}

#[test]
fn collapsed_features_are_reported_within_a_hundred_steps_of_a_long_training() {
    let collapsed = signals(&simdino(), features(4, false), features(2, false));
    for every in [1, 10, 20, 50] {
        let mut watch = CollapseDetector::default();
        let steps = (every..=200).step_by(every);
        let told = steps.into_iter().find(|&i| watch.observe(i as u64, 1e-5, &collapsed).is_some());
        assert!(told.is_some_and(|step| step <= 100), "{every}: {told:?}");
    }
}

#[test]
fn a_run_that_starts_collapsed_is_told_at_once() {
    let mut watch = CollapseDetector::default();
    let collapsed = signals(&simdino(), features(4, false), features(2, false));
    let words = watch.observe(0, 0.0, &collapsed).unwrap();
    assert!(words.starts_with("the run starts almost collapsed: "), "{words}");
    // It is not reported again while it lasts, but a later collapse is.
    assert!((1..9).all(|step| watch.observe(step, 0.5, &collapsed).is_none()));
    let healthy = signals(&simdino(), features(4, true), features(2, true));
    assert_eq!(watch.observe(9, 0.5, &healthy), None);
    let raised = (10..20).filter_map(|step| watch.observe(step, 0.5, &collapsed)).count();
    assert_eq!(raised, 1);
}

#[test]
fn two_views_of_one_image_are_no_collapse() {
    let one = |views: i64| features(views, false).narrow(1, 0, 1);
    let seen = signals(&dino(), one(4), one(2));
    assert!(seen.one_image && seen.effective_rank < 1.1 && seen.feature_std < 0.15, "{seen:?}");
    assert_eq!(seen.verdict(), None);
    // With a single image, it is no collapse that all images have the same prototype.
    let sure = Signals { entropy_of_mean: Some(0.0), ..seen };
    assert_eq!(sure.verdict(), None);
    assert!(Signals { one_image: false, ..sure }.verdict().is_some());
}
