//! Compares the averaged gradients of two real processes with those of one.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::time::Duration;

use processes::{all_pass, rendezvous};
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, ProcessGroup, Reducer, ReducerOptions};

const BATCH: i64 = 8;
const STEPS: usize = 4;

fn noise(shape: &[i64], seed: usize) -> Tensor {
    let count: i64 = shape.iter().product();
    let phase = (Tensor::arange(count, (Kind::Double, Device::Cpu)) + 1.0) * (12.9 + seed as f64);
    ((phase.sin() * 43_758.5).frac() * 2.0).reshape(shape)
}

/// Returns the parameters of a small network that fills several of the buckets used here.
fn parameters() -> Vec<(String, Tensor)> {
    let shapes: [&[i64]; 5] = [&[16, 6], &[16], &[16, 16], &[16], &[1, 16]];
    let named = |(i, shape): (usize, &&[i64])| {
        (format!("layer.{i}"), noise(shape, i).set_requires_grad(true))
    };
    shapes.iter().enumerate().map(named).collect()
}

/// Returns a loss that is a mean over rows. `[n, 6] -> []`
fn loss(parameters: &[(String, Tensor)], x: &Tensor) -> Tensor {
    let p = |i: usize| &parameters[i].1;
    let hidden = (x.matmul(&p(0).tr()) + p(1)).tanh();
    let hidden = (hidden.matmul(&p(2).tr()) + p(3)).tanh();
    hidden.matmul(&p(4).tr()).square().mean(None)
}

fn rows(step: usize, first: i64, count: i64) -> Tensor {
    noise(&[BATCH, 6], 100 + step).narrow(0, first, count)
}

fn assert_close(got: &Tensor, want: &Tensor, what: &str) {
    let error = f64::try_from((got - want).abs().max()).unwrap();
    assert!(error < 1e-12, "{what}: differs by {error}");
}

fn descend(parameters: &mut [(String, Tensor)]) {
    tch::no_grad(|| {
        for (_, parameter) in parameters {
            let update = parameter.grad() * -0.1;
            let _ = parameter.g_add_(&update);
        }
    });
}

#[test]
fn averaged_gradients_are_those_of_the_whole_batch() {
    all_pass("as_half_of_the_batch", 2);
}

#[test]
#[ignore = "started by averaged_gradients_are_those_of_the_whole_batch"]
fn as_half_of_the_batch() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    for micro_batches in [1, 2] {
        for bucket_bytes in [ReducerOptions::default().bucket_bytes, 1024] {
            let options = ReducerOptions { bucket_bytes, ..ReducerOptions::default() };
            train_beside_one_process(&group, options, micro_batches);
        }
    }
}

fn train_beside_one_process(group: &ProcessGroup, options: ReducerOptions, micro_batches: i64) {
    let (mut shared, mut alone) = (parameters(), parameters());
    if group.rank() == 1 {
        tch::no_grad(|| shared.iter_mut().for_each(|(_, p)| drop(p.zero_()))); // unlike process 0's
    }
    let tensors: Vec<_> = shared.iter().map(|(_, p)| p.shallow_clone()).collect();
    group.broadcast_all(&tensors, 0).unwrap();
    let reducer = Reducer::new(group, &shared, options).unwrap();
    let own = BATCH / group.size() as i64;
    let part = own / micro_batches;
    for step in 0..STEPS {
        reducer.zero_grad().unwrap();
        for number in 0..micro_batches {
            let last = number + 1 == micro_batches;
            if last {
                reducer.prepare_for_forward().unwrap();
            }
            let first = group.rank() as i64 * own + number * part;
            let loss = loss(&shared, &rows(step, first, part)) / micro_batches as f64;
            if last { reducer.backward(&loss) } else { reducer.accumulate(&loss) }.unwrap();
        }
        alone.iter_mut().for_each(|(_, p)| p.zero_grad());
        loss(&alone, &rows(step, 0, BATCH)).backward();
        for ((name, got), (_, want)) in shared.iter().zip(&alone) {
            assert_close(&got.grad(), &want.grad(), &format!("step {step}, gradient of {name}"));
        }
        descend(&mut shared);
        descend(&mut alone);
    }
    assert_close(&shared[2].1, &alone[2].1, "a weight at the end");
}

#[test]
fn a_new_reducer_repeats_the_bits_of_an_old_one() {
    all_pass("as_one_third_that_starts_again", 3);
}

#[test]
#[ignore = "started by a_new_reducer_repeats_the_bits_of_an_old_one"]
fn as_one_third_that_starts_again() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let options = ReducerOptions { bucket_bytes: 1024, ..ReducerOptions::default() };
    let (old, new) = (parameters(), parameters());
    let reducer = Reducer::new(&group, &old, options).unwrap();
    for step in 0..3 {
        reducer.zero_grad().unwrap();
        let fresh = Reducer::new(&group, &new, options).unwrap();
        for (reducer, parameters) in [(&reducer, &old), (&fresh, &new)] {
            reducer.prepare_for_forward().unwrap();
            let first = 2 * group.rank() as i64;
            reducer.backward(&loss(parameters, &rows(step, first, 2))).unwrap();
        }
        for ((name, a), (_, b)) in old.iter().zip(&new) {
            assert_eq!(a.grad(), b.grad(), "step {step}, gradient of {name}");
        }
        new.iter().for_each(|(_, parameter)| drop(parameter.grad().zero_()));
    }
}

#[test]
fn gradients_of_micro_batches_stay_at_home() {
    all_pass("as_one_who_accumulates", 2);
}

#[test]
#[ignore = "started by gradients_of_micro_batches_stay_at_home"]
fn as_one_who_accumulates() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let shared = parameters();
    let reducer = Reducer::new(&group, &shared, ReducerOptions::default()).unwrap();
    let batch = rows(group.rank(), 0, BATCH);
    reducer.accumulate(&loss(&shared, &batch)).unwrap();
    let first = group.all_gather(&shared[0].1.grad()).unwrap();
    assert!(first[0] != first[1], "the processes had other batches");
}

#[test]
fn a_parameter_without_a_part_in_the_loss_is_named_or_counts_as_zero() {
    all_pass("as_one_with_an_unused_parameter", 2);
}

#[test]
#[ignore = "started by a_parameter_without_a_part_in_the_loss_is_named_or_counts_as_zero"]
fn as_one_with_an_unused_parameter() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let weight = |value: f64| {
        (Tensor::ones([2], (Kind::Double, Device::Cpu)) * value).set_requires_grad(true)
    };
    let named = [("used".to_owned(), weight(1.0)), ("sometimes".to_owned(), weight(2.0))];
    // Only process 1 uses the second parameter.
    let loss = |only_first: bool| {
        let first = named[0].1.sum(None);
        if only_first { first } else { first + named[1].1.sum(None) * 4.0 }
    };
    let options = ReducerOptions { find_unused_parameters: true, ..ReducerOptions::default() };
    let reducer = Reducer::new(&group, &named, options).unwrap();
    for _ in 0..3 {
        reducer.zero_grad().unwrap();
        reducer.prepare_for_forward().unwrap();
        reducer.backward(&loss(group.rank() == 0)).unwrap();
        assert_eq!(named[0].1.grad(), Tensor::ones([2], (Kind::Double, Device::Cpu)));
        assert_eq!(named[1].1.grad(), Tensor::ones([2], (Kind::Double, Device::Cpu)) * 2.0);
    }
    drop(reducer);
    let reducer = Reducer::new(&group, &named, ReducerOptions::default()).unwrap();
    reducer.prepare_for_forward().unwrap();
    let error = reducer.backward(&loss(true)).unwrap_err().to_string();
    assert!(error.starts_with("the loss does not depend on sometimes: "), "{error}");
}

#[test]
fn a_process_that_dies_during_backward_is_named() {
    let port = processes::free_port();
    let name = "as_one_of_two_of_whom_one_dies";
    let children: Vec<_> = (0..2).map(|rank| processes::start(name, rank, 2, port)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
#[ignore = "started by a_process_that_dies_during_backward_is_named"]
fn as_one_of_two_of_whom_one_dies() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(20))).unwrap();
    let shared = parameters();
    let reducer = Reducer::new(&group, &shared, ReducerOptions::default()).unwrap();
    reducer.prepare_for_forward().unwrap();
    let loss = loss(&shared, &rows(0, 0, BATCH));
    if group.rank() == 1 {
        std::process::exit(0);
    }
    let error = reducer.backward(&loss).unwrap_err().to_string();
    assert!(error.contains("averaging gradients over all processes failed: process 1"), "{error}");
    assert!(error.contains(" is gone ("), "{error}");
}

#[test]
fn what_cannot_be_averaged_is_refused() {
    all_pass("as_one_with_nothing_to_average", 1);
}

#[test]
#[ignore = "started by what_cannot_be_averaged_is_refused"]
fn as_one_with_nothing_to_average() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(60))).unwrap();
    let frozen = [("frozen".to_owned(), Tensor::ones([2], (Kind::Float, Device::Cpu)))];
    for (parameters, words) in [(&frozen[..], "frozen does not require"), (&[], "there are none")] {
        let error = Reducer::new(&group, parameters, ReducerOptions::default()).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
