//! Tests that without the teacher's moving average, SimDINO learns and DINO collapses (Table 8 of
//! the paper), at a size that takes seconds.

mod common;

use common::{Bench, lines, stderr};

/// Settings under which the teacher is the student of the previous step.
const NO_AVERAGE: [&str; 6] = [
    "optim.momentum_teacher=0",
    "optim.momentum_teacher_end=0",
    "optim.base_lr=0.02",
    "train.epochs=24",
    "train.log_every=10",
    "train.checkpoint_every=1000",
];

/// Trains for 120 steps, and returns the messages of the run.
fn said(bench: &Bench, name: &str, method: &[&str]) -> String {
    let name = format!("run.name={name}");
    let output = bench.run(&[&["train", "tiny.yaml", &name], method, &NO_AVERAGE].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    stderr(&output)
}

#[test]
fn simdino_spreads_and_dino_sets_off_the_alarm() {
    let bench = Bench::new();
    let alarm = "the training has collapsed: ";
    let dino = said(&bench, "dino", &["method=dino", "head.prototypes=64"]);
    assert!(dino.contains(alarm), "{dino}");

    let held = ["simdino.coeff_rule=held", "simdino.rate_groups=1"];
    let simdino = said(&bench, "simdino", &held);
    assert!(!simdino.contains(alarm), "{simdino}");
    let lines = lines(&bench, "simdino");
    let position = |line: &serde_json::Value| line["rate/position"].as_f64();
    let late: Vec<f64> = lines.iter().skip(3).filter_map(position).collect();
    assert!(late.len() > 5 && late.iter().all(|&position| position > 0.3), "{late:?}");
    let similarity = lines.last().unwrap()["loss/compression"].as_f64().unwrap();
    assert!(similarity > 0.65, "views of an image agree at the end: {similarity}");
}
