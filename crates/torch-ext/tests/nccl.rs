//! Tests NCCL, as far as this machine supports it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::time::Duration;

use processes::free_port;
use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{Collective, Error, ProcessGroup, Reducer, ReducerOptions, Rendezvous};

fn alone() -> ProcessGroup {
    let timeout = Duration::from_secs(60);
    ProcessGroup::join(Rendezvous::new("127.0.0.1", free_port(), 0, 1, timeout)).unwrap()
}

#[test]
fn without_a_gpu_the_error_says_so() {
    if Cuda::is_available() {
        println!("skipped: this machine has a GPU");
        return;
    }
    let error = alone().with_cuda(0).unwrap_err();
    let words = error.to_string();
    if torch_ext::has_nccl() {
        assert!(matches!(error, Error::Nccl { index: 0, .. }), "{words}");
        assert!(words.starts_with("NCCL failed to start on CUDA device 0: "), "{words}");
        assert!(words.contains("no GPUs found"), "{words}");
    } else {
        assert!(matches!(error, Error::NcclNotBuilt), "{words}");
    }
}

#[test]
fn nccl_serves_the_gpu_and_gloo_the_cpu() {
    if !Cuda::is_available() || !torch_ext::has_nccl() {
        println!("skipped: no GPU, or no NCCL in this build");
        return;
    }
    let group = alone().with_cuda(0).unwrap();
    for device in [Device::Cuda(0), Device::Cpu] {
        let mut ones = Tensor::ones([4], (Kind::Float, device));
        group.all_reduce_sum(&mut ones).unwrap();
        assert_eq!(ones, Tensor::ones([4], (Kind::Float, device)));
        assert_eq!(group.all_gather(&ones).unwrap().len(), 1);
    }
    group.barrier().unwrap();
}

/// The gradients of a single process are those without a reducer, with Gloo on the CPU and with
/// NCCL on a GPU.
#[test]
fn a_reducer_of_one_process_changes_nothing() {
    let mut devices = vec![Device::Cpu];
    let mut group = alone();
    if Cuda::is_available() && torch_ext::has_nccl() {
        group = group.with_cuda(0).unwrap();
        devices.push(Device::Cuda(0));
    } else {
        println!("skipped: the GPU's part, no GPU, or no NCCL in this build");
    }
    for device in devices {
        let weight = || {
            let values = Tensor::arange(12, (Kind::Float, device)).view([3, 4]);
            (values / 7.0).set_requires_grad(true)
        };
        let loss = |weight: &Tensor| weight.sin().square().sum(Kind::Float);
        let (shared, plain) = (weight(), weight());
        let named = [("weight".to_owned(), shared.shallow_clone())];
        let reducer = Reducer::new(&group, &named, ReducerOptions::default()).unwrap();
        for _ in 0..2 {
            reducer.zero_grad().unwrap();
            reducer.prepare_for_forward().unwrap();
            reducer.backward(&loss(&shared)).unwrap();
        }
        loss(&plain).backward();
        assert_eq!(shared.grad(), plain.grad(), "{device:?}");
    }
}
