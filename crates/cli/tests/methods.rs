//! Tests of each method with the real binary: it trains, logs its terms, and is resumed exactly.

mod common;

use std::fs;

use common::{Bench, final_state, kill_at, lines, stderr};

/// For each method: the overrides that it needs besides the small config, and the metrics that it
/// logs.
const METHODS: [(&str, &[&str], &[&str]); 5] = [
    ("simdino", &[], &["loss/compression", "loss/expansion", "rate/position"]),
    ("simdinov2", &[], &["loss/compression", "loss/expansion", "loss/patches"]),
    ("simdino", &["simdino.coeff_rule=held"], &["rate/coeff", "rate/path"]),
    ("dino", &["head.prototypes=32"], &["loss/cls", "teacher/entropy"]),
    (
        "dinov2",
        &["head.prototypes=32", "koleo.groups=2"],
        &["loss/cls", "loss/patches", "loss/koleo"],
    ),
];

/// Overrides with which the weights overflow at the first step.
const LOSES_ITSELF: [&str; 3] =
    ["optim.base_lr=1e25", "optim.warmup_epochs=0", "train.max_skipped_steps=2"];

fn arguments<'a>(method: &'a str, name: &'a str, extra: &[&'a str]) -> Vec<String> {
    let mut all = vec!["train".into(), "tiny.yaml".into()];
    all.extend([format!("method={method}"), format!("run.name={name}")]);
    all.extend(extra.iter().map(|&word| word.to_owned()));
    all
}

fn as_words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[test]
fn every_method_trains_and_is_resumed_exactly() {
    let bench = Bench::new();
    for (i, (method, extra, terms)) in METHODS.into_iter().enumerate() {
        let run = format!("{method}{i}");
        bench.ok(&as_words(&arguments(method, &run, extra)));
        let whole = final_state(&bench.path(&format!("runs/{run}")), 10);
        let last = lines(&bench, &run).pop().unwrap();
        for term in terms.iter().chain(&["optim/grad_norm_head", "optim/update_ratio"]) {
            assert!(last[*term].as_f64().is_some(), "{method} logs no {term}: {last}");
        }
        assert!(bench.path(&format!("runs/{run}/report.html")).is_file());
        let killed = format!("{run}-killed");
        kill_at(&bench, &as_words(&arguments(method, &killed, extra)), "step 5/");
        let resumed = final_state(&bench.path(&format!("runs/{killed}")), 10);
        assert!(whole == resumed, "{method} ends otherwise after a kill");
    }
}

#[test]
fn accumulation_leaves_the_objective_as_it_is() {
    let bench = Bench::new();
    for (i, (method, extra, _)) in METHODS.into_iter().enumerate() {
        let extra = [extra, &common::COMPARABLE].concat();
        let run = format!("{method}{i}");
        bench.ok(&as_words(&arguments(method, &run, &extra)));
        let parts = format!("{run}-parts");
        let extra = [&extra[..], &["train.accumulate=2"]].concat();
        bench.ok(&as_words(&arguments(method, &parts, &extra)));
        let loss = |name: &str| -> Vec<f64> {
            lines(&bench, name).iter().map(|l| l["loss/total"].as_f64().unwrap()).collect()
        };
        for (step, (a, b)) in loss(&run).iter().zip(loss(&parts)).enumerate() {
            assert!((a - b).abs() < 1e-5 * a.abs(), "{method}, step {}: {a} and {b}", step + 1);
        }
    }
}

#[test]
fn steps_that_are_not_finite_change_nothing_and_end_the_run_after_a_while() {
    let bench = Bench::new();
    let extra = [&LOSES_ITSELF[..], &["train.checkpoint_every=1000"]].concat();
    let message = bench.fails(1, &as_words(&arguments("simdino", "lost", &extra)));
    for part in ["not finite at step", "(skipped steps in a row: 3)", "lost_batch.txt"] {
        assert!(message.contains(part), "{message}");
    }
    let names = fs::read_to_string(bench.path("runs/lost/lost_batch.txt")).unwrap();
    assert_eq!(names.lines().count(), 1 + 16, "a headline and the images of the step: {names}");
    assert!(names.contains(".png"), "{names}");
    let skipped: f64 =
        lines(&bench, "lost").iter().map(|line| line["train/skipped"].as_f64().unwrap()).sum();
    assert_eq!(skipped, 2.0, "the last one ends the run before its line");
}

#[test]
fn weights_that_are_lost_are_never_saved() {
    let bench = Bench::new();
    let message = bench.fails(1, &as_words(&arguments("simdino", "lost", &LOSES_ITSELF)));
    assert!(message.contains("weights are not finite after step 3"), "{message}");
    // Weights that are finite, but give features that are not, are an end with a warning.
    let large =
        ["train", "tiny.yaml", "run.name=large", "optim.base_lr=1e8", "optim.warmup_epochs=0"];
    let output =
        bench.run(&[&large[..], &["train.stop_after=3", "train.checkpoint_every=3"]].concat());
    assert!(stderr(&output).contains("steps were skipped"), "{}", stderr(&output));
    assert!(
        !bench.path("runs/lost/checkpoints").exists(),
        "the first would have been after step 3"
    );
}

#[test]
fn a_teacher_without_momentum_is_the_student() {
    let bench = Bench::new();
    let extra = ["optim.momentum_teacher=0", "optim.momentum_teacher_end=0"];
    bench.ok(&as_words(&arguments("simdino", "same", &extra)));
    let checkpoint = bench.path("runs/same/checkpoints/step-00000010");
    let tensors = |side: &str| {
        let bytes = fs::read(checkpoint.join(format!("{side}.safetensors"))).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        bytes[8 + header..].to_vec()
    };
    assert!(tensors("student") == tensors("teacher"));
}

#[test]
fn other_optimizers_and_precisions_train() {
    let bench = Bench::new();
    for (name, extra) in [
        ("sgd", &["optim.optimizer=sgd"][..]),
        ("lars", &["optim.optimizer=lars", "optim.base_lr=0.3"]),
        ("bf16", &["train.precision=bf16"]),
        ("fp16", &["train.precision=fp16", "train.checkpoint_every=4"]),
    ] {
        bench.ok(&as_words(&arguments("simdinov2", name, extra)));
        let last = lines(&bench, name).pop().unwrap();
        assert!(last["loss/total"].as_f64().unwrap().is_finite(), "{name}: {last}");
    }
}

#[test]
fn loader_threads_change_nothing() {
    let bench = Bench::new();
    for (name, workers) in [("one", "data.workers=1"), ("many", "data.workers=16")] {
        bench.ok(&as_words(&arguments("simdinov2", name, &[workers, "data.prefetch=3"])));
    }
    let state = |name: &str| final_state(&bench.path(&format!("runs/{name}")), 10);
    assert!(state("one") == state("many"));
}
