//! Tests of `run.deterministic`, `train.precision: tf32`, dry runs, and `bench step`, with the real
//! binary on a CPU.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::process::Stdio;

use common::{Bench, final_state, stderr};
use serde_json::Value;

const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";

#[test]
fn a_deterministic_run_on_a_cpu_has_the_bits_of_any_other() {
    let bench = Bench::new();
    let dinov2 = ["method=dinov2", "head.prototypes=32", "koleo.groups=2", "run.threads=2"];
    for (method, settings) in [("simdino", &[][..]), ("dinov2", &dinov2)] {
        let state = |name: &str, deterministic| {
            let named = format!("run.name={name}");
            let flag = format!("run.deterministic={deterministic}");
            bench.ok(&[&["train", "tiny.yaml", &named, &flag], settings].concat());
            let text =
                std::fs::read_to_string(bench.path(&format!("runs/{name}/env.json"))).unwrap();
            let environment: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(environment["deterministic"], deterministic, "{environment}");
            assert_eq!(environment["precision"], "fp32", "{environment}");
            final_state(&bench.path(&format!("runs/{name}")), 10)
        };
        let plain = state(&format!("{method}_plain"), false);
        assert!(plain == state(&format!("{method}_deterministic"), true), "{method}");
    }
}

#[test]
fn a_workspace_with_which_products_do_not_repeat_is_refused_before_anything_is_written() {
    let bench = Bench::new();
    let args = ["train", "tiny.yaml", "run.deterministic=true"];
    let output = bench.command(&args).env(WORKSPACE, ":0:0").output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("run.deterministic: CUBLAS_WORKSPACE_CONFIG is \":0:0\""), "{said}");
    assert!(said.contains("set it to :4096:8 or :16:8"), "{said}");
    assert!(!bench.path("runs").exists());
}

#[test]
fn tf32_is_refused_on_a_cpu_however_the_run_gets_there() {
    let bench = Bench::new();
    for args in [
        &["train", "tiny.yaml", "train.precision=tf32"][..],
        &["train", "tiny.yaml", "train.precision=tf32", "--dry-run"],
        &["bench", "step", "tiny.yaml", "train.precision=tf32"],
        &["config", "check", "tiny.yaml", "train.precision=tf32"],
    ] {
        let said = bench.fails(2, args);
        assert!(said.contains("train.precision: tf32 needs a GPU"), "{said}");
        assert!(said.contains("use fp32"), "{said}");
    }
    if !tch::Cuda::is_available() {
        let auto = ["train", "tiny.yaml", "train.precision=tf32", "run.device=auto"];
        assert!(bench.fails(2, &auto).contains("train.precision: tf32"));
    }
    assert!(!bench.path("runs").exists());
}

#[test]
fn a_dry_run_says_how_products_are_computed_and_whether_they_repeat() {
    let bench = Bench::new();
    let said = bench.ok(&["train", "tiny.yaml", "--dry-run", "train.precision=bf16"]);
    let line = |name: &str| said.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("precision").ends_with("products of the networks in bfloat16"), "{said}");
    assert!(line("repeatable").contains("bit for bit"), "{said}");
    assert!(!said.contains("exchange"), "one process exchanges nothing: {said}");
}

#[test]
fn a_dry_run_plans_for_processes_that_are_not_there() {
    let bench = Bench::new();
    let plan = |processes: &str, more: &[&str]| {
        let args = ["train", "tiny.yaml", "--dry-run", "--processes", processes];
        bench.run(&[&args[..], more].concat())
    };
    let text = String::from_utf8(plan("2", &["simdino.rate_groups=1"]).stdout).unwrap();
    // Features have width 16, so two covariances have 16 x 16 numbers each.
    for line in [
        "covariances of the coding rate, 2.0 kB in 1 message\n",
        "flag: whether to stop, 4 B in 1 message, on the CPU\n",
        "per step with 2 processes (assumed for Gloo: 0.150 ms per message, 1 GB/s per link)\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    let refused = plan("3", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("train.batch_size: must be a multiple of 3"));
    let alone = bench.run(&["train", "tiny.yaml", "--processes", "2"]);
    assert!(stderr(&alone).contains("--dry-run"), "{}", stderr(&alone));
}

#[test]
fn nobody_has_to_read_the_answer() {
    let bench = Bench::new();
    let step = ["bench", "step", "tiny.yaml", "--steps", "1", "--warmup", "0"];
    for args in
        [&["train", "tiny.yaml", "--dry-run"][..], &step, &[&step[..], &["--json"]].concat()]
    {
        let mut command = bench.command(args);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn bench_step_compares_sizes_and_says_what_is_modeled() {
    let bench = Bench::without_images();
    let step = ["bench", "step", "tiny.yaml", "--steps", "1", "--warmup", "0"];
    let text = bench.ok(&[&step[..], &["--costs"]].concat());
    assert!(
        text.contains("as configured") && text.contains("modeled: the measured time"),
        "{text}"
    );
    let json = bench.ok(&[&step[..], &["--costs", "--json"]].concat());
    let json: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    let costs = json["costs"].as_array().unwrap();
    assert_eq!(costs[0]["step_ms"], json["step_ms"]);
    assert!(costs.iter().filter(|cost| cost["measured"] == true).count() == 1, "{json}");
    // The sizes are those of the published step, but the network and the batch are smaller.
    let small = ["--shape", "dinov3_vitl16", "model.arch=vit_nano", "train.batch_size=4"];
    let json = bench.ok(&[&step[..], &small, &["--json"]].concat());
    let json: Value = serde_json::from_str(json.lines().last().unwrap()).unwrap();
    let config = &json["config"];
    assert_eq!(
        (&config["augment"]["local_crops_number"], &config["model"]["patch_size"]),
        (&8.into(), &16.into())
    );
    assert!(bench.ok(&[&step[..], &small].concat()).contains("DINOv3 reports 112 img/s per H100"));
}
