//! A batch that is split over processes has the same objective as the whole batch in one process:
//! values, state, and gradients of a parameter, averaged as in data-parallel training. The tests
//! run real processes over Gloo.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;
#[path = "../../torch-ext/tests/support/processes.rs"]
mod processes;

use std::time::Duration;

use common::assert_close;
use objectives::{
    Centering, DinoConfig, Inputs, KoleoConfig, MaskWeights, Method, ObjectiveConfig, Outputs,
    RatePrecision, SimDinoConfig, StepContext,
};
use processes::{all_pass, rendezvous};
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, ProcessGroup, SingleProcess};

const BATCH: i64 = 12;
const WIDTH: i64 = 6;
/// Number of masked patches of each crop: all crops of view 0, then those of view 1.
const MASKED: [i64; 24] = [2, 0, 1, 0, 0, 3, 0, 1, 0, 0, 2, 0, 0, 0, 4, 0, 1, 0, 2, 0, 0, 1, 1, 0];
/// The same, but the second half of the images has no masked patches.
const UNEVEN: [i64; 24] = [2, 0, 1, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0, 0, 0, 0, 0];

fn noise(shape: &[i64], seed: f64) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = (Tensor::arange(count, (Kind::Double, Device::Cpu)) + 1.0) * (12.9898 + seed);
    ((phase.sin() * 43_758.545_3).frac() * 2.0).reshape(shape)
}

/// This process's share of the batch, from which the inputs of the objectives are made.
#[derive(Clone, Copy)]
struct BatchShare {
    first: i64,
    images: i64,
    masked: [i64; 24],
}

impl BatchShare {
    fn of(rank: usize, size: usize) -> Self {
        let images = BATCH / size as i64;
        Self { first: rank as i64 * images, images, masked: MASKED }
    }

    fn cls(&self, views: i64, seed: f64) -> Tensor {
        noise(&[views, BATCH, WIDTH], seed).narrow(1, self.first, self.images)
    }

    /// Returns the masked patches of the crops in this share, and their weights.
    fn patches(&self, seed: f64) -> (Tensor, MaskWeights) {
        let (mut rows, mut weights, mut at) = (Vec::new(), Vec::new(), 0);
        for (crop, &count) in self.masked.iter().enumerate() {
            let image = crop as i64 % BATCH;
            if image >= self.first && image < self.first + self.images {
                rows.extend(at..at + count);
                weights.extend((0..count).map(|_| 1.0 / count as f64));
            }
            at += count;
        }
        let all = noise(&[self.masked.iter().sum(), WIDTH], seed);
        let own = all.index_select(0, &Tensor::from_slice(&rows));
        let crops = 2 * self.images as usize;
        (own, MaskWeights { weights: Tensor::from_slice(&weights), crops })
    }
}

/// Returns the loss and the gradient of a weight in each of two steps, as means over the processes
/// as in data-parallel training, and the state after the second one.
fn two_steps(config: &ObjectiveConfig, share: &BatchShare, all: &dyn Collective) -> Vec<Tensor> {
    let mut objective = config.build().unwrap();
    let unit = |x: Tensor| &x / x.square().sum_dim_intlist(-1, true, None).sqrt();
    let prototypes = objective.needs().prototypes;
    let head = |x: Tensor| if prototypes { x } else { unit(x) };
    let mut results = Vec::new();
    for step in [0.0, 0.5] {
        let weight = noise(&[WIDTH, WIDTH], 3.0 + step).set_requires_grad(true);
        let (patches, masked) = share.patches(2.0 + step);
        let learned = |x: &Tensor| head(x.matmul(&weight));
        let student = Outputs {
            cls: learned(&share.cls(4, step)),
            patches: Some(learned(&patches)),
            backbone: Some(share.cls(2, step).matmul(&weight)),
        };
        let teacher = Outputs {
            cls: head(share.cls(2, 1.0 + step)),
            patches: Some(head(patches)),
            backbone: None,
        };
        let output = objective
            .evaluate(&Inputs {
                student: &student,
                teacher: &teacher,
                masked: Some(&masked),
                context: StepContext::first(BATCH as usize),
                collective: all,
                deferred: None,
            })
            .unwrap();
        output.loss.backward();
        for mut value in [output.loss.detach().reshape([1]), weight.grad()] {
            all.all_reduce_sum(&mut value).unwrap();
            results.push(value / all.size() as f64);
        }
        objective.update(&output.statistics, all).unwrap();
    }
    results.extend(objective.state().into_iter().map(|(_, tensor)| tensor));
    results
}

/// Returns each configuration with its name and the number of tensors in its state.
fn configs() -> Vec<(&'static str, ObjectiveConfig, usize)> {
    let simdino = |rate_groups, center_cov| SimDinoConfig {
        rate_groups,
        center_cov,
        precision: RatePrecision::Fp64,
        ..SimDinoConfig::default()
    };
    let of = |method, simdino| ObjectiveConfig { method, simdino, ..ObjectiveConfig::default() };
    let prototypes = |method, centering| ObjectiveConfig {
        dino: DinoConfig { centering, ..DinoConfig::default() },
        ..of(method, simdino(1, false))
    };
    let balanced = SimDinoConfig { gamma: objectives::Gamma::Balanced, ..simdino(1, false) };
    let held = |groups| SimDinoConfig {
        coeff_rule: objectives::CoeffRule::Held,
        ..simdino(groups, false)
    };
    let koleo = ObjectiveConfig {
        koleo: KoleoConfig { loss_weight: 0.1, groups: 2 },
        ..prototypes(Method::DinoV2, Centering::Softmax)
    };
    vec![
        ("groups", of(Method::SimDino, simdino(2, false)), 0),
        ("more groups than processes", of(Method::SimDino, simdino(6, true)), 0),
        ("one covariance", of(Method::SimDino, simdino(1, false)), 0),
        ("one covariance, centered", of(Method::SimDino, simdino(1, true)), 0),
        ("balanced", of(Method::SimDino, balanced), 1),
        ("held", of(Method::SimDino, held(2)), 1),
        ("held, one covariance, SimDINOv2", of(Method::SimDinoV2, held(1)), 1),
        ("SimDINOv2", of(Method::SimDinoV2, simdino(2, false)), 0),
        ("DINO", prototypes(Method::Dino, Centering::Softmax), 1),
        ("DINOv2", prototypes(Method::DinoV2, Centering::Softmax), 2),
        ("DINOv2 with KoLeo", koleo, 2),
        ("DINOv2, Sinkhorn", prototypes(Method::DinoV2, Centering::SinkhornKnopp), 0),
    ]
}

#[test]
fn two_processes_are_one() {
    all_pass("as_a_share_of_the_batch", 2);
}

#[test]
#[ignore = "started by two_processes_are_one"]
fn as_a_share_of_the_batch() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let (whole, own) = (BatchShare::of(0, 1), BatchShare::of(group.rank(), group.size()));
    for (name, config, states) in configs() {
        for masked in [MASKED, UNEVEN] {
            let whole = two_steps(&config, &BatchShare { masked, ..whole }, &SingleProcess);
            let parts = two_steps(&config, &BatchShare { masked, ..own }, &group);
            assert_eq!((whole.len(), parts.len()), (4 + states, 4 + states), "{name}");
            for (part, (got, want)) in parts.iter().zip(&whole).enumerate() {
                assert_close(&format!("{name}, result {part}"), got, want, 1e-9);
            }
        }
    }
}

#[test]
fn a_group_that_no_process_holds_as_a_whole_is_refused() {
    all_pass("as_a_third_of_two_groups", 3);
}

#[test]
#[ignore = "started by a_group_that_no_process_holds_as_a_whole_is_refused"]
fn as_a_third_of_two_groups() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let share = BatchShare::of(group.rank(), group.size());
    let (student, teacher) =
        (Outputs::of_cls(share.cls(4, 0.0)), Outputs::of_cls(share.cls(2, 1.0)));
    let config = SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() };
    let inputs = Inputs {
        student: &student,
        teacher: &teacher,
        masked: None,
        context: StepContext::first(BATCH as usize),
        collective: &group,
        deferred: None,
    };
    let error =
        objectives::simdino::SimDinoLoss::new(&config).unwrap().forward(&inputs).unwrap_err();
    assert!(error.to_string().contains("the batch size 4 is not a multiple"), "{error}");
    group.barrier().unwrap();
}
