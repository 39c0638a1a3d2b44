//! Tests that a run that was killed and resumed ends with the same bits as an uninterrupted one.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use common::{Bench, final_state, kill_at, lines};

/// Starts the run of `name`, kills it once it has printed `marker`, and resumes it.
fn kill_run(bench: &Bench, name: &str, marker: &str, overrides: &[&str]) {
    let run_name = format!("run.name={name}");
    kill_at(bench, &[&["train", "tiny.yaml", &run_name], overrides].concat(), marker);
}

#[test]
fn a_killed_run_ends_like_one_never_interrupted() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=whole"]);
    let whole = final_state(&bench.path("runs/whole"), 10);
    // Kill the run before the first checkpoint, within an epoch, when a checkpoint is due, and near
    // the end.
    for (i, marker) in ["step 2/", "step 4/", "step 6/", "step 9/"].iter().enumerate() {
        let name = format!("killed{i}");
        kill_run(&bench, &name, marker, &[]);
        let resumed = final_state(&bench.path(&format!("runs/{name}")), 10);
        for ((part, expected), (_, got)) in whole.iter().zip(&resumed) {
            assert!(expected == got, "{part} differs after a kill at '{marker}'");
        }
        assert_eq!(steps(&bench, &name), (1..=10).collect::<Vec<u64>>(), "each step logged once");
    }
}

#[test]
fn accumulation_resumes_exactly_too() {
    let bench = Bench::new();
    let overrides = ["train.accumulate=2", "data.workers=2"];
    bench.ok(&[&["train", "tiny.yaml", "run.name=whole"][..], &overrides].concat());
    kill_run(&bench, "killed", "step 5/", &overrides);
    let state = |name| final_state(&bench.path(&format!("runs/{name}")), 10);
    assert!(state("whole") == state("killed"));
}

#[test]
fn what_the_objective_remembers_is_resumed() {
    let bench = Bench::new();
    let overrides = ["simdino.gamma=balanced", "simdino.gamma_balance=3"];
    bench.ok(&[&["train", "tiny.yaml", "run.name=whole"][..], &overrides].concat());
    kill_run(&bench, "killed", "step 5/", &overrides);
    let state = |name| final_state(&bench.path(&format!("runs/{name}")), 10);
    assert!(state("whole") == state("killed"));
    let gammas = metric(&bench, "killed", "rate/gamma");
    assert!(gammas.windows(2).all(|pair| pair[0] != pair[1]), "gamma must move: {gammas:?}");
    assert_eq!(gammas, metric(&bench, "whole", "rate/gamma"));
}

/// Returns a metric of each step of a run.
fn metric(bench: &Bench, name: &str, key: &str) -> Vec<f64> {
    lines(bench, name).iter().map(|line| line[key].as_f64().unwrap()).collect()
}

/// Returns the steps in the metrics of a run.
fn steps(bench: &Bench, name: &str) -> Vec<u64> {
    lines(bench, name).iter().map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn a_signal_writes_a_checkpoint_and_exits_with_3() {
    let bench = Bench::new();
    let args = ["train", "tiny.yaml", "train.epochs=2000", "train.checkpoint_every=1000000"];
    let mut child = bench.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("step 3/")));
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume auto")), "{rest:?}");
    assert!(bench.path("runs/tiny/checkpoints/latest").is_file());
}

#[test]
fn changed_settings_are_refused_and_named() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=3"]);
    let message = bench.fails(1, &["train", "tiny.yaml", "optim.base_lr=0.5", "--resume", "auto"]);
    assert!(message.contains("optim.base_lr was 0.0005, is 0.5"), "{message}");
    let end = ["train", "tiny.yaml", "train.stop_after=2", "--resume", "auto"];
    let message = bench.fails(1, &end);
    assert!(message.contains("has already done 3 steps"), "{message}");
    // A k-NN table of the network so far is removed, because it is not about the final network.
    let results = bench.path("runs/tiny/results.json");
    std::fs::write(&results, r#"{"knn": {"scores": []}, "crop": 32, "other": 1}"#).unwrap();
    // Settings that do not affect the results may change, and `latest` is the newest checkpoint.
    let latest = "runs/tiny/checkpoints/latest";
    bench.ok(&["train", "tiny.yaml", "data.workers=2", "train.log_every=2", "--resume", latest]);
    assert_eq!(*steps(&bench, "tiny").last().unwrap(), 10);
    assert_eq!(std::fs::read_to_string(&results).unwrap(), "{\n  \"other\": 1\n}\n");
}

#[test]
fn a_damaged_checkpoint_is_passed_over_or_refused() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=whole"]);
    bench.ok(&["train", "tiny.yaml", "train.stop_after=6"]);
    let flip = |step: u64| {
        let file = bench.path(&format!("runs/tiny/checkpoints/step-{step:08}/student.safetensors"));
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
    };
    flip(6);
    let explicit =
        bench.fails(1, &["train", "tiny.yaml", "--resume", "runs/tiny/checkpoints/step-00000006"]);
    assert!(explicit.contains("student.safetensors") && explicit.contains("SHA-256"), "{explicit}");
    let teacher = bench.path("runs/tiny/checkpoints/step-00000006/teacher.safetensors");
    let intact = std::fs::read(&teacher).unwrap();
    let mut damaged = intact.clone();
    *damaged.last_mut().unwrap() ^= 1;
    std::fs::write(&teacher, damaged).unwrap();
    let embed = ["embed", "--weights", "runs/tiny/checkpoints/step-00000006", "--data"];
    let refused = bench.fails(1, &[&embed[..], &["images/images", "--out", "f.npy"]].concat());
    assert!(refused.contains("teacher.safetensors") && refused.contains("SHA-256"), "{refused}");
    let from = "init.from=runs/tiny/checkpoints/step-00000006";
    let refused = bench.fails(1, &["train", "tiny.yaml", "run.name=next", from]);
    assert!(refused.contains("teacher.safetensors") && refused.contains("SHA-256"), "{refused}");
    std::fs::write(&teacher, intact).unwrap();
    // The previous checkpoint is used, with a warning, and the result is still exact.
    let output = bench.run(&["train", "tiny.yaml", "--resume", "auto"]);
    let message = common::stderr(&output);
    assert!(output.status.success() && message.contains("damaged checkpoint"), "{message}");
    assert!(
        final_state(&bench.path("runs/whole"), 10) == final_state(&bench.path("runs/tiny"), 10)
    );

    for step in [6, 9, 10] {
        flip(step);
    }
    let none_left = bench.fails(1, &["train", "tiny.yaml", "--resume", "auto"]);
    assert!(none_left.contains("SHA-256"), "{none_left}");
}

/// A limit on the file size simulates a full disk: a write fails in the middle of a file.
#[test]
fn a_disk_that_takes_no_more_leaves_the_old_checkpoint() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=whole"]);
    bench.ok(&["train", "tiny.yaml", "train.stop_after=3"]);
    let limited = "trap '' XFSZ; ulimit -f 1500; exec \"$0\" train tiny.yaml --resume auto";
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", limited, env!("CARGO_BIN_EXE_simdino")]).current_dir(bench.path(""));
    let output = shell.output().unwrap();
    let message = common::stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("step-00000006") && message.contains("too large"), "{message}");
    let names: Vec<String> = std::fs::read_dir(bench.path("runs/tiny/checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(names.contains(&"step-00000003".to_owned()), "{names:?}");
    assert!(!names.iter().any(|name| name.contains("step-00000006")), "{names:?}");
    // Once there is room again, the run continues from the old checkpoint.
    bench.ok(&["train", "tiny.yaml", "--resume", "auto"]);
    assert!(
        final_state(&bench.path("runs/whole"), 10) == final_state(&bench.path("runs/tiny"), 10)
    );
}

#[test]
fn a_run_that_goes_back_does_not_return_to_the_steps_it_left() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=whole"]);
    bench.ok(&["train", "tiny.yaml"]);
    let old = "runs/tiny/checkpoints/step-00000006";
    let back = ["train", "tiny.yaml", "train.stop_after=8", "--resume", old];
    let message = common::stderr(&bench.run(&back));
    assert!(
        message.contains("goes back to step 6") && message.contains("set-aside-1"),
        "{message}"
    );
    let aside = bench.path("runs/tiny/checkpoints/set-aside-1");
    assert!(aside.join("step-00000010/state.json").is_file());
    let message = common::stderr(&bench.run(&["train", "tiny.yaml", "--resume", "auto"]));
    assert!(message.contains("from step 8"), "{message}");
    assert_eq!(steps(&bench, "tiny"), (1..=10).collect::<Vec<u64>>());
    let state = |name| final_state(&bench.path(&format!("runs/{name}")), 10);
    assert!(state("whole") == state("tiny"));
}

#[test]
fn a_copied_checkpoint_begins_a_run_in_the_folder_of_the_config() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=whole"]);
    std::fs::create_dir(bench.path("backup")).unwrap();
    let copy = bench.path("backup/copy");
    std::fs::rename(bench.path("runs/whole/checkpoints/step-00000009"), &copy).unwrap();
    bench.ok(&["train", "tiny.yaml", "run.name=fork", "--resume", "backup/copy"]);
    // The new run does not depend on the copy any more.
    assert!(bench.path("runs/fork/checkpoints/step-00000009").is_dir());
    assert!(bench.path("runs/fork/weights/teacher.safetensors").is_file());
    assert_eq!(std::fs::read_dir(bench.path("backup")).unwrap().count(), 1, "the copy alone");
    assert!(!bench.path("checkpoints").exists() && !copy.join("config.yaml").exists());
    let state = |name| final_state(&bench.path(&format!("runs/{name}")), 10);
    assert!(state("whole") == state("fork"));
    // It does not mix with an existing run.
    let before = lines(&bench, "whole");
    let taken = ["train", "tiny.yaml", "run.name=whole", "--resume", "backup/copy"];
    let message = bench.fails(2, &taken);
    assert!(message.contains("whole already holds a run that the checkpoint"), "{message}");
    assert_eq!(lines(&bench, "whole"), before);
    let gone = bench.fails(1, &["train", "tiny.yaml", "--resume", "backup/gone"]);
    assert!(gone.contains("backup/gone does not exist"), "{gone}");
}

#[test]
fn a_checkpoint_named_from_within_its_folder_is_that_of_its_run() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=6"]);
    let mut command =
        bench.command(&["train", "../../../tiny.yaml", "data.path=../../../images/images"]);
    command.args(["--resume", "step-00000006"]).current_dir(bench.path("runs/tiny/checkpoints"));
    let output = command.output().unwrap();
    let message = common::stderr(&output);
    assert!(output.status.success(), "{message}");
    assert!(bench.path("runs/tiny/checkpoints/step-00000010").is_dir(), "{message}");
}
