//! Tests process groups with real processes: the test program starts itself again for each of them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::time::{Duration, Instant};

use processes::{PORT, all_pass, free_port, rendezvous, start};
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, Error, ProcessGroup, Rendezvous, SingleProcess};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn sums_maxima_and_broadcasts_reach_every_process() {
    all_pass("as_one_process_of_several", 3);
}

#[test]
#[ignore = "started by sums_maxima_and_broadcasts_reach_every_process"]
fn as_one_process_of_several() {
    let group = ProcessGroup::join(rendezvous(LONG)).unwrap();
    assert_eq!(group.size(), 3);
    let rank = group.rank() as f64;
    let ramp = Tensor::arange(5, (Kind::Double, Device::Cpu));
    let mut sum = &ramp * (rank + 1.0);
    group.all_reduce_sum(&mut sum).unwrap();
    assert_eq!(sum, &ramp * 6.0);
    let mut most = (&ramp - rank) * -1.0;
    group.all_reduce_max(&mut most).unwrap();
    assert_eq!(most, (&ramp - 2.0) * -1.0);
    // A tensor that is not contiguous is updated in place.
    let whole = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu)) + rank;
    let mut column = whole.select(1, 1);
    group.all_reduce_sum(&mut column).unwrap();
    assert_eq!(whole.select(1, 1), Tensor::zeros([4], (Kind::Float, Device::Cpu)) + 3.0);
    assert_eq!(whole.select(1, 0), Tensor::zeros([4], (Kind::Float, Device::Cpu)) + rank);
    let mut word = &ramp + 10.0 * rank;
    group.broadcast(&mut word, 2).unwrap();
    assert_eq!(word, &ramp + 20.0);
    // Several tensors at once: other data types, not contiguous, or requiring a gradient.
    let whole = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu)) + rank;
    let weight = (Tensor::zeros([3], (Kind::Float, Device::Cpu)) + rank).set_requires_grad(true);
    let many = [whole.select(1, 0), &ramp + rank, weight, Tensor::from_slice(&[rank as i64])];
    group.broadcast_all(&many, 1).unwrap();
    assert_eq!(whole.select(1, 0), Tensor::ones([4], (Kind::Float, Device::Cpu)));
    assert_eq!(whole.select(1, 1), Tensor::zeros([4], (Kind::Float, Device::Cpu)) + rank);
    assert_eq!(many[1], &ramp + 1.0);
    assert!(many[2].requires_grad() && many[2].double_value(&[0]) == 1.0);
    assert_eq!(many[3].int64_value(&[0]), 1);
    group.barrier().unwrap();
}

#[test]
fn tensors_bytes_and_texts_of_all_are_gathered() {
    all_pass("as_one_who_gathers", 3);
}

#[test]
#[ignore = "started by tensors_bytes_and_texts_of_all_are_gathered"]
fn as_one_who_gathers() {
    let group = ProcessGroup::join(rendezvous(LONG)).unwrap();
    let rank = group.rank();
    let grid = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
    let turned = (&grid + rank as f64).tr(); // not contiguous
    for (other, got) in group.all_gather(&turned).unwrap().iter().enumerate() {
        assert_eq!(*got, (&grid + other as f64).tr());
    }
    let texts = ["", "two words", "\u{e9}\n"];
    assert_eq!(group.all_gather_text(texts[rank]).unwrap(), texts);
    assert_eq!(group.all_gather_bytes(&[]).unwrap(), vec![Vec::<u8>::new(); 3]);
    let own = vec![rank as u8; rank + 1];
    assert_eq!(group.broadcast_bytes(&own, 2).unwrap(), [2, 2, 2]);
    assert!(group.broadcast_bytes(&own[..rank], 0).unwrap().is_empty());
}

#[test]
fn every_process_names_the_one_with_other_parameters() {
    all_pass("as_one_of_different_networks", 3);
}

#[test]
#[ignore = "started by every_process_names_the_one_with_other_parameters"]
fn as_one_of_different_networks() {
    let group = ProcessGroup::join(rendezvous(LONG)).unwrap();
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    let mut named = vec![("a".to_owned(), zeros(&[2])), ("b".to_owned(), zeros(&[3, 2]))];
    group.require_same(&named).unwrap();
    SingleProcess.require_same(&named).unwrap();
    if group.rank() == 2 {
        named[1].1 = zeros(&[2, 3]);
    }
    let error = group.require_same(&named).unwrap_err().to_string();
    let words = "process 2 has b [2, 3] Float where process 0 has b [3, 2] Float";
    assert!(error.starts_with(words), "{error}");
    if group.rank() == 1 {
        named.truncate(1);
    }
    let error = group.require_same(&named).unwrap_err().to_string();
    assert!(error.starts_with("process 1 has no further parameter where process 0"), "{error}");
}

#[test]
fn gradients_flow_through_a_differentiable_sum() {
    all_pass("as_one_of_a_sum_with_gradient", 2);
}

#[test]
#[ignore = "started by gradients_flow_through_a_differentiable_sum"]
fn as_one_of_a_sum_with_gradient() {
    let group = ProcessGroup::join(rendezvous(LONG)).unwrap();
    let factor = group.rank() as f64 + 1.0;
    let x = (Tensor::ones([2, 2], (Kind::Double, Device::Cpu)) * factor).set_requires_grad(true);
    let sum = group.differentiable_sum(&x.tr()).unwrap();
    // The loss of process r is (r + 1) |sum|^2, so that of both is 3 |sum|^2.
    (sum.square().sum(None) * factor).backward();
    assert_eq!(sum, Tensor::ones([2, 2], (Kind::Double, Device::Cpu)) * 3.0);
    assert_eq!(x.grad(), Tensor::ones([2, 2], (Kind::Double, Device::Cpu)) * 18.0);
}

/// Runs a test in three processes, of which process 2 may fail.
fn survivors_pass(name: &str) {
    let port = free_port();
    let children: Vec<_> = (0..3).map(|rank| start(name, rank, 3, port)).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Returns the error of an operation of a survivor after process 2 has left the group.
fn error_of_survivor(group: &ProcessGroup) -> String {
    let mut one = Tensor::ones([1], (Kind::Float, Device::Cpu));
    let error = group.all_reduce_sum(&mut one).unwrap_err();
    let Error::Group(failure) = &error else { panic!("{error}") };
    assert!(failure.gone.is_empty() || failure.gone == [2], "{error}");
    let error = error.to_string();
    let port = std::env::var(PORT).unwrap();
    let rank = group.rank();
    let words = format!("process {rank} of 3 at 127.0.0.1:{port}: sum over all processes failed: ");
    assert!(error.starts_with(&words) && !error.contains('\n'), "{error}");
    error[words.len()..].to_owned()
}

#[test]
fn a_process_that_dies_is_named_by_all_others_in_time() {
    survivors_pass("as_one_of_three_of_whom_one_dies");
}

#[test]
#[ignore = "started by a_process_that_dies_is_named_by_all_others_in_time"]
fn as_one_of_three_of_whom_one_dies() {
    let timeout = Duration::from_secs(20);
    let group = ProcessGroup::join(rendezvous(timeout)).unwrap();
    group.barrier().unwrap();
    if group.rank() == 2 {
        std::process::exit(0); // like a killed process, without telling the others
    }
    let start = Instant::now();
    let error = error_of_survivor(&group);
    assert!(start.elapsed() < 2 * timeout);
    let host = torch_ext::host_name();
    assert!(error.starts_with(&format!("process 2 on {host} is gone (")), "{error}");
}

#[test]
fn process_0_takes_the_store_with_it_and_is_named() {
    survivors_pass("as_one_of_three_of_whom_the_first_dies");
}

#[test]
#[ignore = "started by process_0_takes_the_store_with_it_and_is_named"]
fn as_one_of_three_of_whom_the_first_dies() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(20))).unwrap();
    group.barrier().unwrap();
    if group.rank() == 0 {
        std::process::exit(0);
    }
    let error = error_of_survivor(&group);
    assert!(error.starts_with("process 0, which hosts the store, is gone ("), "{error}");
}

#[test]
fn a_process_that_says_why_it_leaves_is_quoted() {
    survivors_pass("as_one_of_three_of_whom_one_leaves");
}

#[test]
#[ignore = "started by a_process_that_says_why_it_leaves_is_quoted"]
fn as_one_of_three_of_whom_one_leaves() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(20))).unwrap();
    if group.rank() == 2 {
        group.announce_failure("cannot read x.jpg");
        std::process::exit(0);
    }
    let error = error_of_survivor(&group);
    assert!(error.contains(" left: cannot read x.jpg ("), "{error}");
}

#[test]
fn a_process_that_is_late_is_named_too() {
    all_pass("as_one_of_two_of_whom_one_waits", 2);
}

#[test]
#[ignore = "started by a_process_that_is_late_is_named_too"]
fn as_one_of_two_of_whom_one_waits() {
    let group = ProcessGroup::join(rendezvous(Duration::from_secs(4))).unwrap();
    group.barrier().unwrap();
    if group.rank() == 1 {
        // Stays alive without reaching the barrier, until the other process has given up.
        let stdin = std::io::stdin();
        std::io::Read::read_to_end(&mut stdin.lock(), &mut Vec::new()).unwrap();
        return;
    }
    let error = group.barrier().unwrap_err().to_string();
    let words = "is behind, at operation 1 (barrier), while this process is at 2";
    assert!(error.contains(words), "{error}");
}

#[test]
fn processes_that_do_not_come_are_waited_for_in_vain() {
    let timeout = Duration::from_secs(2);
    let host = "127.0.0.1";
    let alone = Rendezvous::new(host, free_port(), 0, 2, timeout);
    let error = ProcessGroup::join(alone.clone()).unwrap_err().to_string();
    assert!(error.starts_with("process 0 of 2 at 127.0.0.1:"), "{error}");
    assert!(error.contains("process 1 did not join (is every process running"), "{error}");
    let error =
        ProcessGroup::join(Rendezvous { rank: 1, ..alone.clone() }).unwrap_err().to_string();
    assert!(error.starts_with("process 1 of 2 at 127.0.0.1:"), "{error}");
    let beyond = ProcessGroup::join(Rendezvous { rank: 2, ..alone }).unwrap_err().to_string();
    assert!(beyond.contains("the rank must be less"), "{beyond}");
}

#[test]
fn alone_there_is_nothing_to_exchange() {
    let mut x = Tensor::ones([2], (Kind::Float, Device::Cpu));
    SingleProcess.all_reduce_sum(&mut x).unwrap();
    SingleProcess.all_reduce_max(&mut x).unwrap();
    assert_eq!(x, x.ones_like());
    assert_eq!((SingleProcess.size(), SingleProcess.rank()), (1, 0));
}
