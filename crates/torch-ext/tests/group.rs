//! Process groups, with real processes: this test program starts itself again as each of them.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "support/processes.rs"]
mod processes;

use std::time::{Duration, Instant};

use processes::{PORT, all_pass, free_port, meeting, start};
use tch::{Device, Kind, Tensor};
use torch_ext::{Alone, Collective, Meeting, ProcessGroup};

const LONG: Duration = Duration::from_secs(60);

#[test]
fn sums_maxima_and_broadcasts_reach_every_process() {
    all_pass("as_one_process_of_several", 3);
}

#[test]
#[ignore = "started by sums_maxima_and_broadcasts_reach_every_process"]
fn as_one_process_of_several() {
    let group = ProcessGroup::join(meeting(LONG)).unwrap();
    assert_eq!(group.size(), 3);
    let rank = group.rank() as f64;
    let ramp = Tensor::arange(5, (Kind::Double, Device::Cpu));
    let mut sum = &ramp * (rank + 1.0);
    group.all_reduce_sum(&mut sum).unwrap();
    assert_eq!(sum, &ramp * 6.0);
    let mut most = (&ramp - rank) * -1.0;
    group.all_reduce_max(&mut most).unwrap();
    assert_eq!(most, (&ramp - 2.0) * -1.0);
    // A tensor with gaps is written where it lies.
    let whole = Tensor::zeros([4, 2], (Kind::Float, Device::Cpu)) + rank;
    let mut column = whole.select(1, 1);
    group.all_reduce_sum(&mut column).unwrap();
    assert_eq!(whole.select(1, 1), Tensor::zeros([4], (Kind::Float, Device::Cpu)) + 3.0);
    assert_eq!(whole.select(1, 0), Tensor::zeros([4], (Kind::Float, Device::Cpu)) + rank);
    let mut word = &ramp + 10.0 * rank;
    group.broadcast(&mut word, 2).unwrap();
    assert_eq!(word, ramp + 20.0);
    group.barrier().unwrap();
}

#[test]
fn a_process_that_dies_is_an_error_of_the_others_in_time() {
    let port = free_port();
    let survivor = start("as_the_survivor", 0, 2, port);
    let victim = start("as_the_victim", 1, 2, port);
    for child in [victim, survivor] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
#[ignore = "started by a_process_that_dies_is_an_error_of_the_others_in_time"]
fn as_the_survivor() {
    let group = ProcessGroup::join(meeting(Duration::from_secs(20))).unwrap();
    let mut one = Tensor::ones([1], (Kind::Float, Device::Cpu));
    group.all_reduce_sum(&mut one).unwrap();
    let start = Instant::now();
    let error = group.all_reduce_sum(&mut one).unwrap_err().to_string();
    assert!(start.elapsed() < Duration::from_secs(30));
    let port = std::env::var(PORT).unwrap();
    let words = format!("process 0 of 2 at 127.0.0.1:{port}: sum over all processes failed");
    assert!(error.starts_with(&words) && !error.contains('\n'), "{error}");
}

#[test]
#[ignore = "started by a_process_that_dies_is_an_error_of_the_others_in_time"]
fn as_the_victim() {
    let group = ProcessGroup::join(meeting(Duration::from_secs(20))).unwrap();
    let mut one = Tensor::ones([1], (Kind::Float, Device::Cpu));
    group.all_reduce_sum(&mut one).unwrap();
    std::process::exit(0); // as if killed: nothing is said to the others
}

#[test]
fn processes_that_do_not_come_are_waited_for_in_vain() {
    let timeout = Duration::from_secs(2);
    let host = "127.0.0.1".to_owned();
    let alone = Meeting { host, port: free_port(), rank: 0, size: 2, timeout };
    let error = ProcessGroup::join(alone.clone()).unwrap_err().to_string();
    assert!(error.starts_with("process 0 of 2 at 127.0.0.1:"), "{error}");
    assert!(error.contains("is every process running"), "{error}");
    let beyond = ProcessGroup::join(Meeting { rank: 2, ..alone }).unwrap_err().to_string();
    assert!(beyond.contains("ranks go from 0"), "{beyond}");
}

#[test]
fn alone_there_is_nothing_to_exchange() {
    let mut x = Tensor::ones([2], (Kind::Float, Device::Cpu));
    Alone.all_reduce_sum(&mut x).unwrap();
    Alone.all_reduce_max(&mut x).unwrap();
    assert_eq!(x, x.ones_like());
    assert_eq!((Alone.size(), Alone.rank()), (1, 0));
}
