//! Tests of `simdino study`, with the real binary.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::process::{Command, Stdio};

use common::{Bench, stderr};
use serde_json::Value;

const GRID: &str = "
base: tiny.yaml
settings: {train.epochs: 1, probe.train_path: images/images, probe.test_path: images/images}
methods:
  held: {simdino.coeff_rule: held}
  wrong: {data.path: nowhere}
  misspelled: {train.epoch: 3}
axes:
  train.batch_size: [8, {16: {optim.warmup_epochs: 0.5}}]
seeds: [0, 1]
";

fn rows(bench: &Bench) -> Vec<Value> {
    let text = fs::read_to_string(bench.path("runs/grid/study.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["rows"].as_array().unwrap().clone()
}

/// Checks that finished runs, with the rows `first`, are not repeated.
fn repeats_nothing(bench: &Bench, first: &[Value]) {
    // Finished runs are not repeated, and those beyond the first stay in the table.
    bench.ok(&["study", "grid.yaml", "--first", "1"]);
    let done = |rows: &[Value]| rows.iter().filter(|row| row["status"] == "done").count();
    assert_eq!((rows(bench).len(), done(&rows(bench))), (12, done(first)));
    let output = bench.run(&["study", "grid.yaml", "--first", "0"]);
    assert!(stderr(&output).contains("'--first <N>': must be at least 1"), "{}", stderr(&output));
    let said =
        bench.fails(2, &["study", "grid.yaml", "--out", "runs/grid/runs/held_batch_size=8_seed=0"]);
    assert!(said.contains("holds a training run"), "{said}");
    let output = bench.run(&["study", "grid.yaml", "--jobs", "4"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && !said.contains("held_batch"), "{said}");
    assert_eq!(rows(bench)[0], first[0]);
}

#[test]
fn a_study_makes_each_run_once_and_a_failure_is_a_row() {
    let bench = Bench::new();
    fs::write(bench.path("grid.yaml"), GRID).unwrap();
    // The dry run names what will fail.
    let output = bench.run(&["study", "grid.yaml", "--dry-run"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("invalid runs: 8 of 12"), "{}", stderr(&output));
    let listed = String::from_utf8_lossy(&output.stdout);
    for line in listed.lines() {
        assert_eq!(line.contains("invalid: "), !line.starts_with("held"), "{line}");
        assert_eq!(line.contains("nowhere: "), line.starts_with("wrong"), "{line}");
    }
    bench.ok(&["study", "grid.yaml", "--jobs", "2"]);
    let first = rows(&bench);
    assert_eq!(first.len(), 12);
    for row in &first {
        let held = row["method"] == "held";
        assert_eq!(row["status"], if held { "done" } else { "failed" }, "{row}");
        assert_eq!(row["knn"].is_number() && row["collapsed"].is_boolean(), held, "{row}");
        let expect = match row["method"].as_str().unwrap() {
            "held" => "",
            "wrong" => "nowhere",
            _ => "unknown key 'train.epoch'",
        };
        assert!(row["message"].as_str().unwrap().contains(expect), "{row}");
    }
    let csv = fs::read_to_string(bench.path("runs/grid/study.csv")).unwrap();
    assert_eq!(csv.lines().count(), 13);
    assert!(csv.starts_with("run,method,train.batch_size,seed,status,collapsed,knn,"), "{csv}");
    let page = fs::read_to_string(bench.path("runs/grid/study.html")).unwrap();
    assert!(page.contains("k-NN by train.batch_size") && !page.contains("NaN"));

    repeats_nothing(&bench, &first);

    // A base config that has changed under the same name is refused.
    let base = fs::read_to_string(bench.path("tiny.yaml")).unwrap();
    fs::write(bench.path("tiny.yaml"), base.replace("warmup_epochs: 1", "warmup_epochs: 0.25"))
        .unwrap();
    let message = bench.fails(2, &["study", "grid.yaml"]);
    assert!(
        message.contains("different optim.warmup_epochs") && message.contains("--out"),
        "{message}"
    );
    fs::write(bench.path("tiny.yaml"), base.replace("log_every: 1", "stop_after: 3")).unwrap();
    let message = bench.fails(2, &["study", "grid.yaml"]);
    assert!(message.contains("different train.stop_after"), "{message}");
    fs::write(bench.path("tiny.yaml"), base).unwrap();

    // Other settings for the same run names are refused.
    fs::write(bench.path("grid.yaml"), GRID.replace("train.epochs: 1", "train.epochs: 2")).unwrap();
    let message = bench.fails(2, &["study", "grid.yaml"]);
    assert!(message.contains("with different settings") && message.contains("--out"), "{message}");
}

#[test]
fn runs_of_one_name_with_different_settings_are_refused() {
    let bench = Bench::without_images();
    let grid = |epochs: u32| {
        format!(
            "base: demo\naxes:\n  - train.batch_size: [{{16: {{train.epochs: 2}}}}]\n  \
             - train.batch_size: [{{16: {{train.epochs: {epochs}}}}}]\n"
        )
    };
    fs::write(bench.path("same.yaml"), grid(2)).unwrap();
    let listed = bench.run(&["study", "same.yaml", "--dry-run"]).stdout;
    assert_eq!(String::from_utf8(listed).unwrap().lines().count(), 1);
    fs::write(bench.path("other.yaml"), grid(4)).unwrap();
    let message = bench.fails(2, &["study", "other.yaml", "--dry-run"]);
    assert!(
        message.contains(
            "other.yaml: two runs with different settings would be named 'base_batch_size=16"
        ),
        "{message}"
    );
}

#[test]
fn a_budget_ends_a_study_that_can_go_on() {
    let bench = Bench::new();
    fs::write(bench.path("grid.yaml"), GRID).unwrap();
    bench.ok(&["study", "grid.yaml", "--budget", "0"]);
    assert!(rows(&bench).iter().all(|row| row["status"] == "not started"));
    bench.ok(&["study", "grid.yaml", "--first", "1"]);
    let status: Vec<Value> = rows(&bench).into_iter().map(|row| row["status"].clone()).collect();
    assert_eq!(status[0], "done");
    assert!(status[1..].iter().all(|status| *status == "not started") && status.len() == 12);
}

#[test]
fn a_study_that_is_stopped_leaves_checkpoints_and_no_process() {
    let bench = Bench::new();
    let long = "base: tiny.yaml\nsettings: {train.epochs: 400, train.log_every: 1}\naxes: {train.batch_size: [8]}\n";
    fs::write(bench.path("grid.yaml"), long).unwrap();
    let study = ["study", "grid.yaml"];
    let child = bench.command(&study).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let runs = bench.path("runs/grid/runs");
    let run = "base_batch_size=8_seed=0";
    bench.wait_for_line(&format!("runs/grid/runs/{run}.output.txt"), "step 3/");
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("run the same command again to continue the study"), "{said}");
    assert_eq!(rows(&bench)[0]["status"], "unfinished");
    // The run has also stopped, with a checkpoint after its last step.
    let printed = fs::read_to_string(runs.join(format!("{run}.output.txt"))).unwrap();
    assert!(printed.contains("stopped by a signal"), "{printed}");
    let metrics = fs::read_to_string(runs.join(run).join("metrics.jsonl")).unwrap();
    let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let name = format!("step-{:08}", last["step"].as_u64().unwrap());
    assert!(runs.join(run).join("checkpoints").join(&name).is_dir(), "{name}");
    // The time of this session is saved, to be counted when the run is done.
    let seconds = fs::read_to_string(runs.join(run).join("study-seconds.txt")).unwrap();
    assert!(seconds.trim().parse::<f64>().unwrap() > 0.1, "{seconds}");
}

#[test]
fn an_error_of_the_study_stops_its_runs_and_writes_the_tables() {
    let bench = Bench::new();
    let long =
        "base: tiny.yaml\nsettings: {train.epochs: 400}\naxes: {train.batch_size: [8, 16]}\n";
    fs::write(bench.path("grid.yaml"), long).unwrap();
    // The output of the second run cannot be written.
    let output = "runs/grid/runs/base_batch_size=16_seed=0.output.txt";
    fs::create_dir_all(bench.path(output)).unwrap();
    let message = bench.fails(1, &["study", "grid.yaml", "--jobs", "2"]);
    assert!(message.contains("cannot write") && message.contains("batch_size=16"), "{message}");
    let status: Vec<_> = rows(&bench).into_iter().map(|row| row["status"].clone()).collect();
    assert_eq!(status, ["unfinished", "not started"]);
}

#[test]
fn a_wrong_grid_is_one_sentence() {
    let bench = Bench::without_images();
    for (grid, expect) in [
        ("[1]", "expected the keys base, settings"),
        ("bases: demo", "bases: unknown key"),
        ("settings: {}", "base: must name a config file or a recipe"),
        ("base: nothing", "no folder, config file, or recipe named 'nothing'"),
        ("{base: demo, seeds: 3}", "seeds: must be a list of non-negative integers"),
        ("{base: demo, seeds: [-1]}", "seeds: must be a list of non-negative integers"),
        ("{base: demo, axes: {train.epochs: 3}}", "axes.train.epochs: must be a list of values"),
        ("{base: demo, axes: {train.epochs: []}}", "axes.train.epochs: must be a list of values"),
        ("{base: demo, axes: 3}", "axes: must be key: [values] pairs"),
        ("{base: demo, methods: [a]}", "methods: must be names with key: value pairs"),
        ("{base: demo, methods: {a: 3}}", "methods.a: must be key: value pairs"),
        ("{base: demo, axes: [{methods: [x]}]}", "axes.methods: 'x' is not defined in methods"),
        ("{base: demo, axes: [{seeds: 3}]}", "axes.seeds: must be a list of non-negative integers"),
        ("{base: demo, settings: {train.epoch: 3}}", "train.epoch"),
        ("{base: demo", "not valid YAML"),
    ] {
        fs::write(bench.path("grid.yaml"), grid).unwrap();
        let message = bench.fails(2, &["study", "grid.yaml"]);
        assert!(message.contains(expect), "{grid}: {message}");
        assert_eq!(message.trim().lines().count(), 1, "{grid}: {message}");
    }
    let message = bench.fails(2, &["study", "missing.yaml"]);
    assert!(message.contains("missing.yaml: cannot read the grid"), "{message}");
}

#[test]
fn the_prepared_studies_are_valid() {
    let bench = Bench::new();
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/studies");
    let mut studies = 0;
    for file in fs::read_dir(folder).unwrap() {
        let file = file.unwrap().path();
        // There are no images here.
        let output = bench.run(&["study", file.to_str().unwrap(), "--dry-run"]);
        let listed = String::from_utf8_lossy(&output.stdout);
        let mut invalid = listed.lines().filter_map(|line| line.split_once("invalid: "));
        assert!(invalid.all(|(_, why)| why.ends_with(": no such file or folder")), "{listed}");
        assert!(!listed.is_empty(), "{}", stderr(&output));
        studies += 1;
    }
    assert!(studies > 0);
}
