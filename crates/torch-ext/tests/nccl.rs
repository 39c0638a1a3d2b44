//! NCCL, as far as the machine has it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::time::Duration;

use processes::free_port;
use tch::{Cuda, Device, Kind, Tensor};
use torch_ext::{Collective, Error, Meeting, ProcessGroup};

fn alone() -> ProcessGroup {
    let timeout = Duration::from_secs(60);
    ProcessGroup::join(Meeting::new("127.0.0.1", free_port(), 0, 1, timeout)).unwrap()
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
        assert!(words.starts_with("nccl does not start on cuda device 0: "), "{words}");
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
