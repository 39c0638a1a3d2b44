//! Properties of the terms of DINO and DINOv2 that follow from their definitions: values worked out
//! by hand, extremes, and cases in which the published forms give NaN.

#![allow(clippy::unwrap_used)]

mod common;

use common::{assert_close, number};
use objectives::dino::DinoLoss;
use objectives::dinov2::DinoV2Loss;
use objectives::koleo::koleo;
use objectives::simdinov2::SimDinoV2Loss;
use objectives::sinkhorn::sinkhorn_knopp;
use objectives::{
    Centering, DinoConfig, IbotConfig, Inputs, KoleoConfig, LossOutput, MaskWeights, Objective,
    Outputs, Result, SimDinoConfig, StepContext,
};
use tch::{Device, Kind, Tensor};
use torch_ext::SingleProcess;

const DOUBLE: (Kind, Device) = (Kind::Double, Device::Cpu);

fn waves(shape: &[i64], seed: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = (Tensor::arange(count, DOUBLE) + 1.0) * (12.9898 + seed);
    ((phase.sin() * 43_758.545_3).frac() * 2.0).reshape(shape)
}

fn evaluate(
    objective: &dyn Objective,
    student: &Outputs,
    teacher: &Outputs,
    masked: Option<&MaskWeights>,
) -> Result<LossOutput> {
    let context = StepContext::first(student.cls.size()[1] as usize);
    objective.evaluate(&Inputs {
        student,
        teacher,
        masked,
        context,
        collective: &SingleProcess,
        deferred: None,
    })
}

fn cls(x: Tensor) -> Outputs {
    Outputs::of_cls(x)
}

#[test]
fn a_teacher_without_opinion_costs_the_logarithm_of_the_prototypes() {
    let dino = DinoLoss::new(&DinoConfig::default()).unwrap();
    let (student, teacher) =
        (cls(Tensor::zeros([4, 3, 50], DOUBLE)), cls(Tensor::zeros([2, 3, 50], DOUBLE)));
    let output = evaluate(&dino, &student, &teacher, None).unwrap();
    assert!((number(&output.loss) - 50f64.ln()).abs() < 1e-12);
    assert_eq!(output.value("loss/uniform"), Some(50f64.ln()));
    assert!((output.value("teacher/entropy").unwrap() - 1.0).abs() < 1e-12);
}

#[test]
fn scores_far_beyond_the_range_of_exp_are_taken() {
    let dino = DinoLoss::new(&DinoConfig::default()).unwrap();
    let far = (waves(&[3, 4, 20], 0.1) * 1e4).to_kind(Kind::Float);
    let teacher = cls(far.narrow(0, 0, 2));
    let student = cls(far.set_requires_grad(true));
    let output = evaluate(&dino, &student, &teacher, None).unwrap();
    output.loss.backward();
    assert!(number(&output.loss).is_finite());
    assert_eq!(number(&student.cls.grad().isfinite().all()), 1.0);
}

#[test]
fn the_center_is_subtracted_in_the_next_step() {
    let config = DinoConfig { center_momentum: 0.0, ..DinoConfig::default() };
    let mut dino = DinoLoss::new(&config).unwrap();
    // One prototype wins everywhere; once the center is subtracted, none does.
    let scores = Tensor::from_slice(&[3.0, 0.0, 0.0, 0.0]).expand([2, 5, 4], false);
    let (student, teacher) = (cls(scores.shallow_clone()), cls(scores));
    let first = evaluate(&dino, &student, &teacher, None).unwrap();
    assert!(first.value("teacher/entropy").unwrap() < 1e-6);
    assert!(first.value("teacher/entropy_of_mean").unwrap() < 1e-6);
    dino.update(&first.statistics, &SingleProcess).unwrap();
    let second = evaluate(&dino, &student, &teacher, None).unwrap();
    assert!((second.value("teacher/entropy").unwrap() - 1.0).abs() < 1e-12);
}

/// A checkpoint is read to the CPU in the type in which it was written. Another type stands in for
/// another device here, because the center adopts the type and the device of the features together.
#[test]
fn a_loaded_center_lives_where_the_features_do() {
    let config = DinoConfig::default();
    let steps: Vec<Tensor> =
        [0.5, 0.6, 0.7].iter().map(|&s| waves(&[2, 5, 4], s).to_kind(Kind::Float)).collect();
    let walk = |dino: &mut DinoLoss, scores: &Tensor| {
        let (student, teacher) = (cls(scores.shallow_clone()), cls(scores.shallow_clone()));
        let output = evaluate(dino, &student, &teacher, None).unwrap();
        dino.update(&output.statistics, &SingleProcess).unwrap();
        number(&output.loss)
    };
    let mut straight = DinoLoss::new(&config).unwrap();
    let mut resumed = DinoLoss::new(&config).unwrap();
    walk(&mut straight, &steps[0]);
    let saved = straight.state();
    resumed.load_state(&[(saved[0].0.clone(), saved[0].1.to_kind(Kind::Double))]).unwrap();
    for scores in &steps[1..] {
        assert_eq!(walk(&mut resumed, scores), walk(&mut straight, scores));
        assert_eq!(resumed.state()[0].1.kind(), Kind::Float);
        assert_eq!(resumed.state()[0].1, straight.state()[0].1);
    }
}

/// Another width stands in for another device: tensors that do not match are an error, not a panic.
#[test]
fn a_center_that_does_not_fit_is_an_error() {
    let mut dino = DinoLoss::new(&DinoConfig::default()).unwrap();
    dino.load_state(&[("center".to_owned(), Tensor::zeros([1, 7], DOUBLE))]).unwrap();
    let scores = waves(&[2, 5, 4], 0.5);
    assert!(evaluate(&dino, &cls(scores.copy()), &cls(scores.copy()), None).is_err());
    let fresh = DinoLoss::new(&DinoConfig::default()).unwrap();
    let output = evaluate(&fresh, &cls(scores.copy()), &cls(scores), None).unwrap();
    assert!(dino.update(&output.statistics, &SingleProcess).is_err());
}

#[test]
fn dino_refuses_sinkhorn_knopp() {
    let config = DinoConfig { centering: Centering::SinkhornKnopp, ..DinoConfig::default() };
    let error = DinoLoss::new(&config).unwrap_err().to_string();
    assert!(error.contains("sinkhorn_knopp is for DINOv2"), "{error}");
}

#[test]
fn sinkhorn_gives_every_row_and_nearly_every_prototype_its_share() {
    let scores = waves(&[64, 16], 0.2);
    let targets = sinkhorn_knopp(&scores, 0.5, &SingleProcess).unwrap();
    let rows = targets.sum_dim_intlist(1, false, None);
    assert_close("rows", &rows, &rows.ones_like(), 1e-14);
    let columns = targets.sum_dim_intlist(0, false, None);
    assert_close("columns", &columns, &(columns.ones_like() * 4.0), 0.05);
}

#[test]
fn sinkhorn_takes_any_scores() {
    // exp(scores / temperature) would overflow, and whole rows would vanish beside it.
    let scores = (waves(&[8, 6], 0.3) * 50.0).to_kind(Kind::Float);
    let targets = sinkhorn_knopp(&scores, 0.04, &SingleProcess).unwrap();
    let rows = targets.sum_dim_intlist(1, false, None);
    assert_close("rows", &rows, &rows.ones_like(), 1e-4);
    let none = sinkhorn_knopp(&Tensor::zeros([0, 6], DOUBLE), 0.04, &SingleProcess).unwrap();
    assert_eq!(none.size(), [0, 6]);
    // Adding a constant to all scores changes nothing.
    let small = waves(&[8, 6], 0.4);
    let moved = sinkhorn_knopp(&(&small + 1e6), 0.1, &SingleProcess).unwrap();
    assert_close("moved", &moved, &sinkhorn_knopp(&small, 0.1, &SingleProcess).unwrap(), 1e-7);
}

#[test]
fn koleo_of_three_points_by_hand() {
    // At 0, 90, and 120 degrees: the first is closest to the second, and the others to each other.
    let angles = Tensor::from_slice(&[0.0, 90.0, 120.0]) * (std::f64::consts::PI / 180.0);
    let points = Tensor::stack(&[angles.cos(), angles.sin()], 1) * 7.0; // lengths do not matter
    let want = -(2f64.sqrt().ln() + 2.0 * (2.0 * 15f64.to_radians().sin()).ln()) / 3.0;
    let got = number(&koleo(&points.view([1, 1, 3, 2])).unwrap());
    assert!((got - want).abs() < 1e-6, "{got} {want}");
    let twice = Tensor::stack(&[&points, &points], 0);
    let of = |shape: &[i64]| number(&koleo(&twice.view(shape)).unwrap());
    assert!((of(&[2, 1, 3, 2]) - 2.0 * got).abs() < 1e-12, "views add up");
    assert!((of(&[1, 2, 3, 2]) - got).abs() < 1e-12, "groups are averaged");
    assert!((of(&[1, 1, 6, 2]) - got).abs() > 1.0, "a group's rows have no neighbors outside it");
}

#[test]
fn koleo_of_equal_rows_is_finite_and_of_one_row_refused() {
    let same = Tensor::ones([1, 1, 4, 9], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let loss = koleo(&same).unwrap();
    loss.backward();
    let want = -(1e-8f64 * (1.0 + 3.0)).ln();
    assert!((number(&loss) - want).abs() < 1e-3, "{} {want}", number(&loss));
    assert_eq!(number(&same.grad().isfinite().all()), 1.0);
    let one = koleo(&Tensor::ones([2, 1, 1, 9], DOUBLE)).unwrap_err();
    assert_eq!(
        one.to_string(),
        "KoLeo needs at least 2 images in each of its groups (got 1): lower koleo.groups"
    );
}

/// Returns outputs of student and teacher with the same masked patches, `counts` of them per crop.
fn agreed(patches: &Tensor, counts: &[i64]) -> (Outputs, Outputs, MaskWeights) {
    let weights: Vec<f64> =
        counts.iter().flat_map(|&n| (0..n).map(move |_| 1.0 / n as f64)).collect();
    let unit = |x: Tensor| &x / x.square().sum_dim_intlist(-1, true, None).sqrt();
    let views = |count: i64| unit(waves(&[count, 4, 8], 0.5));
    let of = |views: Tensor| Outputs {
        cls: views,
        patches: Some(patches.shallow_clone()),
        backbone: None,
    };
    let masked = MaskWeights { weights: Tensor::from_slice(&weights), crops: counts.len() };
    (of(views(3)), of(views(2)), masked)
}

#[test]
fn perfect_patches_cost_minus_the_share_of_masked_crops() {
    let counts = [3, 0, 1, 0, 7, 2, 0, 0];
    let (student, teacher, masked) = agreed(&waves(&[13, 8], 0.6), &counts);
    let config = SimDinoConfig { rate_groups: 1, ..SimDinoConfig::default() };
    let objective =
        SimDinoV2Loss::new(&config, &IbotConfig::default(), &KoleoConfig::default()).unwrap();
    let output = evaluate(&objective, &student, &teacher, Some(&masked)).unwrap();
    assert!((output.value("loss/patches").unwrap() + 0.5).abs() < 1e-12);
    let cls = -output.value("loss/compression").unwrap() - output.value("loss/expansion").unwrap();
    assert!((output.value("loss/total").unwrap() - (cls - 0.5)).abs() < 1e-12);
}

#[test]
fn what_is_missing_or_does_not_fit_is_named() {
    let counts = [3, 0, 1, 0, 7, 2, 0, 0];
    let (mut student, teacher, mut masked) = agreed(&waves(&[13, 8], 0.6), &counts);
    let objective =
        DinoV2Loss::new(&DinoConfig::default(), &IbotConfig::default(), &KoleoConfig::default())
            .unwrap();
    let words = |student: &Outputs, masked: Option<&MaskWeights>| {
        evaluate(&objective, student, &teacher, masked).unwrap_err().to_string()
    };
    assert_eq!(words(&student, None), "the objective needs the masks");
    masked.weights = masked.weights.narrow(0, 0, 12);
    assert_eq!(
        words(&student, Some(&masked)),
        "weights of the masked patches must have shape [13], one number per masked patch (got [12])"
    );
    student.patches = None;
    assert_eq!(words(&student, Some(&masked)), "the objective needs the patches of the student");
    let (ibot, koleo) =
        (IbotConfig { loss_weight: 0.0 }, KoleoConfig { loss_weight: 0.1, groups: 1 });
    let koleo = DinoV2Loss::new(&DinoConfig::default(), &ibot, &koleo).unwrap();
    let error = evaluate(&koleo, &student, &teacher, None).unwrap_err().to_string();
    assert_eq!(error, "the objective needs the class tokens of the student's backbone");
    assert!(koleo.needs().backbone && !koleo.needs().patches && koleo.needs().prototypes);
}

#[test]
fn scores_that_are_not_finite_are_named_by_term() {
    let dino = DinoLoss::new(&DinoConfig::default()).unwrap();
    let student = waves(&[2, 3, 8], 0.7);
    let _ = student.get(1).get(0).get(0).fill_(f64::NAN);
    let error = evaluate(&dino, &cls(student), &cls(waves(&[2, 3, 8], 0.8)), None).unwrap_err();
    let words = "cross-entropy: scores of student or teacher contain a value that is not finite";
    assert_eq!(error.to_string(), words);
}

#[test]
fn weights_and_temperatures_that_cannot_be_are_named() {
    let config = DinoConfig {
        student_temp: 0.0,
        center_momentum: 1.0,
        teacher_temp: f64::NAN,
        ..DinoConfig::default()
    };
    let error = DinoLoss::new(&config).unwrap_err().to_string();
    for key in ["student_temp: ", "center_momentum: ", "teacher_temp: "] {
        assert!(error.contains(key), "{error}");
    }
    let (ibot, koleo) =
        (IbotConfig { loss_weight: -1.0 }, KoleoConfig { groups: 0, ..KoleoConfig::default() });
    let error = DinoV2Loss::new(&config, &ibot, &koleo).unwrap_err().to_string();
    for problem in [
        "dino.student_temp: ",
        "dino.teacher_temp: ",
        "ibot.loss_weight: must not be negative (got -1)",
        "koleo.groups: must be at least 1 (got 0)",
    ] {
        assert!(error.contains(problem), "{error}");
    }
    let simdino = SimDinoConfig { eps: 0.0, ..SimDinoConfig::default() };
    let error = SimDinoV2Loss::new(&simdino, &ibot, &koleo).unwrap_err().to_string();
    assert!(error.contains("simdino.eps: ") && error.contains("koleo.groups: "), "{error}");
}
