//! Compares operations on lists of tensors with plain ones, and tests that invalid lists are
//! rejected.

#![allow(clippy::unwrap_used)]

use tch::{Device, Kind, Tensor};
use torch_ext::{
    AdamWStep, drop_gradients, foreach_lerp_, foreach_mul_, foreach_norm, fused_adamw_,
};

fn tensors(seed: f64, kind: Kind) -> Vec<Tensor> {
    let shapes: [&[i64]; 4] = [&[3], &[4, 5], &[2, 3, 2, 2], &[]];
    let make = |(i, shape): (usize, &&[i64])| {
        let count = shape.iter().product::<i64>();
        let base = Tensor::arange(count, (Kind::Double, Device::Cpu));
        ((base + 1) * (0.37 + seed) + i as f64).sin().reshape(*shape).to_kind(kind)
    };
    shapes.iter().enumerate().map(make).collect()
}

fn copies(list: &[Tensor]) -> Vec<Tensor> {
    list.iter().map(Tensor::copy).collect()
}

fn assert_close(got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size());
    let worst = (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max();
    let worst = f64::try_from(worst).unwrap();
    assert!(worst <= tolerance, "differ by {worst}");
}

#[test]
fn lerp_is_the_moving_average() {
    let (targets, sources) = (tensors(0.0, Kind::Double), tensors(1.0, Kind::Double));
    let want: Vec<_> = targets.iter().zip(&sources).map(|(t, s)| t * 0.9 + s * 0.1).collect();
    foreach_lerp_(&targets, &sources, 0.1).unwrap();
    targets.iter().zip(&want).for_each(|(got, want)| assert_close(got, want, 1e-14));
}

#[test]
fn lerp_writes_leaves_that_require_a_gradient() {
    let targets = vec![Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true)];
    let sources = vec![Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true)];
    foreach_lerp_(&targets, &sources, 0.25).unwrap();
    assert_close(&targets[0], &Tensor::from_slice(&[0.75f32, 0.75]), 0.0);
    assert!(targets[0].is_leaf() && targets[0].requires_grad());
}

#[test]
fn norm_and_mul_agree_with_plain_operations() {
    let list = tensors(0.5, Kind::Float);
    let norms = foreach_norm(&list).unwrap();
    assert_eq!(norms.len(), list.len());
    for (norm, tensor) in norms.iter().zip(&list) {
        assert_close(norm, &(tensor * tensor).sum(Kind::Float).sqrt(), 1e-6);
    }
    let want: Vec<_> = list.iter().zip(&norms).map(|(tensor, norm)| tensor * norm).collect();
    let factors: Vec<f64> = norms.iter().map(|norm| norm.double_value(&[])).collect();
    foreach_mul_(&list, &factors).unwrap();
    list.iter().zip(&want).for_each(|(got, want)| assert_close(got, want, 0.0));
}

#[test]
fn empty_lists_do_nothing() {
    foreach_lerp_(&[], &[], 0.5).unwrap();
    foreach_mul_(&[], &[]).unwrap();
    assert!(foreach_norm(&[]).unwrap().is_empty());
}

#[test]
fn lists_that_do_not_fit_are_errors_and_write_nothing() {
    let (targets, sources) = (tensors(0.0, Kind::Float), tensors(1.0, Kind::Float));
    let before = copies(&targets);
    let message = |result: torch_ext::Result<()>| result.unwrap_err().to_string();

    let short = message(foreach_lerp_(&targets, &sources[..3], 0.1));
    assert!(short.contains("sources has 3 tensors, expected 4"), "{short}");
    let mut wrong_shape = copies(&sources);
    wrong_shape[3] = Tensor::zeros([2], (Kind::Float, Device::Cpu));
    let shape = message(foreach_lerp_(&targets, &wrong_shape, 0.1));
    assert!(shape.contains("sources[3] has shape [2]"), "{shape}");
    let kind = message(foreach_lerp_(&targets, &tensors(1.0, Kind::Double), 0.1));
    assert!(kind.contains("sources[0] is Double"), "{kind}");
    let factors = message(foreach_mul_(&targets, &[0.5]));
    assert!(factors.contains("factors has 1 tensors, expected 4"), "{factors}");
    let undefined = message(foreach_lerp_(&targets[..1], &[Tensor::new()], 0.1));
    assert!(undefined.contains("sources[0] is undefined"), "{undefined}");
    let integers = [Tensor::from_slice(&[1i64, 2])];
    assert!(foreach_norm(&integers).is_err());

    targets.iter().zip(&before).for_each(|(now, before)| assert_close(now, before, 0.0));
}

const LR: f64 = 0.01;
const BETAS: (f64, f64) = (0.9, 0.999);
const WEIGHT_DECAY: f64 = 0.3;
const EPS: f64 = 1e-8;

struct State {
    params: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    steps: Vec<Tensor>,
}

impl State {
    fn new(params: Vec<Tensor>) -> Self {
        let exp_avgs = params.iter().map(Tensor::zeros_like).collect();
        let exp_avg_sqs = params.iter().map(Tensor::zeros_like).collect();
        let step = |_: &Tensor| Tensor::zeros([], (Kind::Float, Device::Cpu));
        let steps = params.iter().map(step).collect();
        Self { params, exp_avgs, exp_avg_sqs, steps }
    }

    fn step<'a>(&'a self, grads: &'a [Tensor]) -> AdamWStep<'a> {
        AdamWStep {
            params: &self.params,
            grads,
            exp_avgs: &self.exp_avgs,
            exp_avg_sqs: &self.exp_avg_sqs,
            steps: &self.steps,
            lr: LR,
            beta1: BETAS.0,
            beta2: BETAS.1,
            weight_decay: WEIGHT_DECAY,
            eps: EPS,
        }
    }
}

/// Performs Algorithm 2 of the AdamW paper, one number at a time.
fn adamw_by_hand(param: &mut [f64], moments: &mut [(f64, f64)], grad: &[f64], t: i32) {
    for ((p, (m, v)), g) in param.iter_mut().zip(moments).zip(grad) {
        *p *= 1.0 - LR * WEIGHT_DECAY;
        *m = BETAS.0 * *m + (1.0 - BETAS.0) * g;
        *v = BETAS.1 * *v + (1.0 - BETAS.1) * g * g;
        let (mean, square) = (*m / (1.0 - BETAS.0.powi(t)), *v / (1.0 - BETAS.1.powi(t)));
        *p -= LR * mean / (square.sqrt() + EPS);
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

fn adamw_matches(kind: Kind, tolerance: f64) {
    let state = State::new(tensors(0.0, kind));
    let mut want: Vec<_> = state.params.iter().map(numbers).collect();
    let mut moments: Vec<_> = want.iter().map(|p| vec![(0.0, 0.0); p.len()]).collect();
    for t in 1..=5 {
        let grads = tensors(0.2 * f64::from(t), kind);
        fused_adamw_(&state.step(&grads)).unwrap();
        for (i, grad) in grads.iter().enumerate() {
            adamw_by_hand(&mut want[i], &mut moments[i], &numbers(grad), t);
        }
    }
    for (got, want) in state.params.iter().zip(&want) {
        for (got, want) in numbers(got).iter().zip(want) {
            assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{got} {want}");
        }
    }
    state.steps.iter().for_each(|step| assert_eq!(f64::try_from(step).unwrap(), 5.0));
}

#[test]
fn adamw_matches_the_paper_over_five_steps() {
    adamw_matches(Kind::Double, 1e-12);
    adamw_matches(Kind::Float, 2e-6);
}

#[test]
fn adamw_reads_gradients_of_another_layout() {
    let plain = State::new(vec![tensors(0.0, Kind::Double).swap_remove(1)]);
    let strided = State::new(copies(&plain.params));
    let grad = tensors(0.7, Kind::Double).swap_remove(1);
    let transposed = grad.transpose(0, 1).contiguous().transpose(0, 1);
    assert_ne!(transposed.stride(), grad.stride());
    fused_adamw_(&plain.step(&[grad])).unwrap();
    fused_adamw_(&strided.step(&[transposed])).unwrap();
    assert_close(&strided.params[0], &plain.params[0], 0.0);
}

#[test]
fn adamw_refuses_what_does_not_fit() {
    let state = State::new(tensors(0.0, Kind::Float));
    let before = copies(&state.params);
    let mut grads = tensors(1.0, Kind::Float);
    assert!(fused_adamw_(&state.step(&grads[..2])).is_err());
    grads[1] = Tensor::zeros([5, 4], (Kind::Float, Device::Cpu));
    let error = fused_adamw_(&state.step(&grads)).unwrap_err().to_string();
    assert!(error.contains("grads[1] has shape [5, 4]"), "{error}");
    state.params.iter().zip(&before).for_each(|(now, before)| assert_close(now, before, 0.0));
    state.steps.iter().for_each(|step| assert_eq!(f64::try_from(step).unwrap(), 0.0));
}

#[test]
fn dropped_gradients_are_gone_and_come_back_afresh() {
    let leaf = || Tensor::ones([3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let parameters = [leaf(), leaf()];
    let backward = || (&parameters[0] * 2.0).sum(Kind::Float).backward();
    backward();
    let old = parameters[0].grad();
    drop_gradients(&parameters).unwrap(); // the second never had one
    assert!(parameters.iter().all(|p| !p.grad().defined()));
    assert_eq!(old.sum(Kind::Float).double_value(&[]), 6.0, "who holds one keeps it");
    backward();
    assert_eq!(parameters[0].grad().sum(Kind::Float).double_value(&[]), 6.0);
    assert!(drop_gradients(&[Tensor::new()]).is_err());
}
