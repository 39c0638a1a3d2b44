//! A step that checks once, at its end, gives the same result as one that checks along the way, and
//! waits for the device only there.

mod precision;
mod setup;

use std::sync::{Mutex, MutexGuard, PoisonError};

use data::batch::BatchGeometry;
use model::ResidualPrecision;
use objectives::{Centering, CoeffRule, Gamma, Method};
use tch::Device;

use super::*;
use crate::step::StepOutput;
use setup::{BATCH, Config, config, learner, request, views};

/// Serializes the tests, because torch has one generator for all threads and records one trace at a
/// time.
static TORCH: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    TORCH.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns copies of everything that a step may change.
fn state(learner: &Learner) -> Vec<(String, Tensor)> {
    let sides = learner.student.named().into_iter().chain(learner.teacher.named());
    let all = sides.chain(learner.optimizer.state()).chain(learner.objective_state());
    all.map(|(name, value)| (name, value.detach().copy())).collect()
}

fn assert_same(before: &[(String, Tensor)], after: &[(String, Tensor)]) {
    assert_eq!(before.len(), after.len());
    for ((name, before), (_, after)) in before.iter().zip(after) {
        assert_eq!(before, after, "{name}");
    }
}

fn done(result: StepResult) -> StepOutput {
    match result {
        StepResult::Done(output) => output,
        StepResult::Skipped(skipped) => panic!("skipped: {}", skipped.what),
    }
}

/// Runs three steps, checked along the way if `on_the_way`; the last one is logged.
fn three_steps(config: &Config, on_the_way: bool) -> (Vec<StepOutput>, Learner) {
    let mut learner = learner(config);
    let mut outputs = Vec::new();
    for step in 0..3 {
        let (request, views) = (request(step, step == 2), views(config, step));
        learner.gradients.clear().unwrap();
        let result = if on_the_way {
            let mut views = Some(views);
            learner.step_checked_on_the_way(&request, || Ok(views.take().unwrap())).unwrap()
        } else {
            learner.step_checked_at_end(&request, &views).unwrap().expect("nothing is wrong")
        };
        outputs.push(done(result));
    }
    (outputs, learner)
}

/// Returns one config of each kind of step: the methods, adapted weights, and Sinkhorn-Knopp.
fn configs() -> Vec<(&'static str, Config)> {
    let mut balanced = config(Method::SimDino);
    balanced.objective.simdino.gamma = Gamma::Balanced;
    let held = |method| {
        let mut config = config(method);
        config.objective.simdino.coeff_rule = CoeffRule::Held;
        config
    };
    let mut sinkhorn = config(Method::DinoV2);
    sinkhorn.objective.dino.centering = Centering::SinkhornKnopp;
    vec![
        ("simdino", config(Method::SimDino)),
        ("simdino, balanced", balanced),
        ("simdino, held", held(Method::SimDino)),
        ("simdinov2", config(Method::SimDinoV2)),
        ("simdinov2, held", held(Method::SimDinoV2)),
        ("dino", config(Method::Dino)),
        ("dinov2", config(Method::DinoV2)),
        ("dinov2, sinkhorn_knopp", sinkhorn),
    ]
}

#[test]
fn looking_once_gives_the_bits_of_looking_on_the_way() {
    let _alone = alone();
    for (_, config) in configs() {
        let (late, one) = three_steps(&config, false);
        let (early, other) = three_steps(&config, true);
        assert_same(&state(&one), &state(&other));
        for (late, early) in late.iter().zip(&early) {
            assert_eq!(late.loss, early.loss);
            assert_eq!((late.grad_norm, &late.grad_norms), (early.grad_norm, &early.grad_norms));
            assert_eq!(late.signals, early.signals);
        }
        assert!(late[2].signals.is_some() && late[1].signals.is_none());
    }
}

/// Runs a good step and then one that `spoil` breaks; checks that the latter changes nothing, and
/// returns why it was skipped.
fn spoiled(config: &Config, spoil: impl Fn(&mut Learner, &mut Views)) -> Skipped {
    let mut learner = learner(config);
    done(learner.step(&request(0, false), || Ok(views(config, 0))).unwrap());
    let mut views = Some(views(config, 1));
    spoil(&mut learner, views.as_mut().unwrap());
    let before = state(&learner);
    let result = learner.step(&request(1, true), || Ok(views.take().unwrap())).unwrap();
    let scale = |name: &str| name != "loss_scale"; // this also changes when a step is skipped
    let after = state(&learner).into_iter().filter(|(name, _)| scale(name));
    let before: Vec<_> = before.into_iter().filter(|(name, _)| scale(name)).collect();
    assert_same(&before, &after.collect::<Vec<_>>());
    match result {
        StepResult::Done(_) => panic!("the step was done"),
        StepResult::Skipped(skipped) => skipped,
    }
}

/// Returns a config whose heads have running statistics, which each forward pass changes.
fn with_batch_norm() -> Config {
    let mut config = config(Method::SimDino);
    config.head.use_bn = true;
    config
}

fn infinite(branch: &Branch) {
    let named = branch.named().into_iter();
    let mut found = named.filter(|(name, _)| name == "backbone.norm.bias");
    let (_, mut bias) = found.next().unwrap();
    let _ = tch::no_grad(|| bias.fill_(f64::INFINITY));
}

#[test]
fn features_that_are_not_finite_change_nothing_and_are_named() {
    let _alone = alone();
    for (_, config) in configs().into_iter().chain([("batch norm", with_batch_norm())]) {
        let skipped = spoiled(&config, |_, views| {
            let _ = views.global.get(3).fill_(f64::NAN);
        });
        assert_eq!(skipped.what, "the student's features are not finite");
        assert!(!skipped.scaling);
        assert_eq!(skipped.samples, (0..BATCH as u64).collect::<Vec<_>>());
        let skipped = spoiled(&config, |learner, _| infinite(&learner.teacher));
        assert_eq!(skipped.what, "the teacher's features are not finite");
    }
}

#[test]
fn a_step_whose_images_do_not_arrive_changes_nothing() {
    let _alone = alone();
    let mut config = with_batch_norm();
    config.geometry = config.geometry.accumulated(2).unwrap();
    let mut learner = learner(&config);
    let (before, mut first) = (state(&learner), Some(views(&config, 0)));
    let mut next = || first.take().ok_or(Error::Data(data::Error::Interrupted));
    let result = learner.step(&request(0, false), &mut next);
    assert!(matches!(result, Err(Error::Data(data::Error::Interrupted))) && first.is_none());
    assert_same(&before, &state(&learner));
}

#[test]
fn a_loss_that_is_not_finite_is_the_error_of_a_step_checked_on_the_way() {
    let _alone = alone();
    for method in [Method::Dino, Method::DinoV2] {
        let config = config(method);
        let mut learner = learner(&config);
        // The scores are finite, but no longer so once they are divided by the temperature.
        let named = learner.teacher.named().into_iter();
        let mut length = named.filter(|(name, _)| name.ends_with("last_layer.weight_g"));
        let _ = tch::no_grad(|| length.next().unwrap().1.fill_(1e38));
        let before = state(&learner);
        let request = request(0, false);
        assert!(learner.step_checked_at_end(&request, &views(&config, 0)).unwrap().is_none());
        let error = learner.step(&request, || Ok(views(&config, 0))).err().unwrap().to_string();
        let words =
            "cross-entropy: scores of student or teacher contain a value that is not finite";
        assert!(error.contains(words), "{error}");
        assert_same(&before, &state(&learner));
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing_and_lowers_the_factor() {
    let _alone = alone();
    let huge = ("loss_scale".to_owned(), Tensor::from_slice(&[1e300, 0.0]));
    for (_, config) in configs() {
        let skipped = spoiled(&config, |learner, _| {
            let mut scale = GradScaler::default();
            scale.load(&[(huge.0.clone(), huge.1.shallow_clone())]);
            learner.loss_scale = Some(scale);
        });
        assert_eq!(skipped.what, "the gradient is not finite");
        assert!(skipped.scaling);
    }
}

#[test]
fn a_coding_rate_that_has_to_be_tried_again_is_and_the_step_is_done() {
    let _alone = alone();
    let mut config = config(Method::SimDino);
    // Larger matrices than those that are always factorized in double precision.
    config.geometry = BatchGeometry::new(132).unwrap();
    config.head.out_dim = 140;
    config.objective.simdino.rate_groups = 1;
    config.objective.simdino.eps = 1e-9;
    let (mut one, mut other) = (learner(&config), learner(&config));
    let request = request(1, true);
    assert!(one.step_checked_at_end(&request, &views(&config, 0)).unwrap().is_none());
    let late = done(one.step(&request, || Ok(views(&config, 0))).unwrap());
    other.gradients.clear().unwrap();
    let early = done(other.step_checked_on_the_way(&request, || Ok(views(&config, 0))).unwrap());
    assert!(late.rate_retries > 0);
    assert_eq!((late.rate_retries, &late.loss), (early.rate_retries, &early.loss));
    assert_same(&state(&one), &state(&other));
}

/// Returns the losses of steps on four alternating batches, with a learning rate large enough to
/// change them.
fn losses(
    precision: Precision,
    residual: ResidualPrecision,
    method: Method,
    steps: u64,
) -> Vec<f64> {
    let mut config = config(method);
    config.precision = precision;
    config.model.residual_precision = residual;
    let mut learner = learner(&config);
    let mut one = |step: u64| {
        let mut request = request(step, false);
        request.values.lr = 1e-3;
        let output = done(learner.step(&request, || Ok(views(&config, step % 4))).unwrap());
        output.loss.double_value(&[])
    };
    (0..steps).map(&mut one).collect()
}

/// With tokens in bf16 between the blocks, losses deviate from those in fp32 about as much as with
/// activations in bf16 alone.
#[test]
fn a_residual_stream_in_bf16_learns_as_one_in_fp32_does() {
    const STEPS: u64 = 24;
    let _alone = alone();
    for method in [Method::SimDino, Method::SimDinoV2] {
        let run = |precision, residual| losses(precision, residual, method, STEPS);
        let exact = run(Precision::Fp32, ResidualPrecision::Fp32);
        let autocast = run(Precision::Bf16, ResidualPrecision::Fp32);
        let rounded = run(Precision::Bf16, ResidualPrecision::Bf16);
        assert_ne!(autocast, rounded, "the precision of the stream has an effect");
        let unused = losses(Precision::Fp32, ResidualPrecision::Bf16, method, 2);
        assert_eq!(unused, exact[..2], "it has none in fp32");
        let learned = exact[0] - exact[STEPS as usize - 1];
        let far = |losses: &[f64]| {
            let deviations = losses.iter().zip(&exact).map(|(a, b)| (a - b).abs());
            deviations.fold(0.0, f64::max) / learned.abs()
        };
        assert!(learned > 0.05, "{exact:?}");
        assert!(far(&rounded) < 0.05 + 2.0 * far(&autocast), "{rounded:?}, {exact:?}");
    }
}

/// Operators that wait for a GPU: they return a number to the host, or a shape that depends on the
/// values.
const WAITING: [&str; 6] = [
    "aten::item",
    "aten::_local_scalar_dense",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
];

/// Returns whether an operator ran inside another one.
fn within(event: &serde_json::Value, outer: &serde_json::Value) -> bool {
    let span = |event: &serde_json::Value| {
        let [start, length] = ["ts", "dur"].map(|key| event[key].as_f64().unwrap());
        (start, start + length)
    };
    let ((start, end), (from, to)) = (span(event), span(outer));
    event["tid"] == outer["tid"] && from <= start && end <= to
}

/// Counts the waiting operators that a step runs outside of the optimizer's kernel. That kernel
/// reads the number of steps only on a CPU, where it costs nothing.
fn waits(config: &Config) -> usize {
    let mut learner = learner(config);
    let mut step = |step| {
        let result = learner.step(&request(step, false), || Ok(views(config, step)));
        done(result.unwrap());
    };
    step(0); // creates what is created once
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace.json");
    torch_ext::profile(&path, Device::Cpu, || -> torch_ext::Result<()> {
        step(1);
        Ok(())
    })
    .unwrap();
    let trace: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let of_name = |name: &str| events.iter().filter(|event| event["name"] == name).collect();
    let optimizer: Vec<&serde_json::Value> = of_name("aten::_fused_adamw_");
    assert!(!optimizer.is_empty(), "the trace is of a step");
    let waiting = WAITING.iter().flat_map(|name| of_name(name));
    waiting.filter(|event| !optimizer.iter().any(|outer| within(event, outer))).count()
}

/// The only read, at the end of a step, is a copy, which is none of these operators.
#[test]
fn a_step_does_not_wait_on_its_way() {
    let _alone = alone();
    for (name, config) in configs() {
        assert_eq!(waits(&config), 0, "{name}");
    }
    let geometry = config(Method::SimDino).geometry.accumulated(2).unwrap();
    let mut accumulate = config(Method::SimDino);
    accumulate.geometry = geometry;
    for config in [accumulate, with_batch_norm()] {
        assert!(waits(&config) > 0, "a step that looks at its features does wait");
    }
}

#[test]
fn state_goes_to_the_device_of_the_learner_or_the_error_says_why_not() {
    let state = || vec![("center".to_owned(), Tensor::from_slice(&[1.0f32, 2.0]))];
    let here = moved(state(), Device::Cpu).unwrap();
    assert_eq!(here[0].1, Tensor::from_slice(&[1.0f32, 2.0]));
    assert!(moved(state(), Device::Cuda(1000)).is_err());
}
