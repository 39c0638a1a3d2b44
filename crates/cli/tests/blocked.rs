//! Tests of sources that never respond and of files that are not regular: a run skips them or stops
//! on request.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Bench, final_state, stderr};

fn make_pipes(paths: &[PathBuf]) {
    assert!(Command::new("mkfifo").args(paths).status().unwrap().success());
}

/// Atomically replaces a symbolic link with one to `to`.
fn point_to(link: &Path, to: &str) {
    let fresh = link.with_extension("fresh");
    symlink(to, &fresh).unwrap();
    fs::rename(fresh, link).unwrap();
}

/// Waits until a file has not grown for three seconds. By then, prefetched images are used up.
fn wait_until_stuck(path: &Path) {
    let size = || fs::metadata(path).map_or(0, |about| about.len());
    let mut last = (size(), Instant::now());
    while last.1.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(20));
        if size() != last.0 {
            last = (size(), Instant::now());
        }
    }
}

/// More shards than are kept open, so that some are opened anew for each read. Redirecting the link
/// turns them into pipes without a writer: such a read blocks in a system call, where no flag is
/// checked.
#[test]
fn a_signal_ends_a_run_whose_source_never_answers() {
    let bench = Bench::without_images();
    bench.ok(&["data", "synth", "images", "--count", "272", "--size", "32"]);
    bench.ok(&["data", "pack", "images/images", "kept", "--shard-images", "1"]);
    fs::create_dir(bench.path("pipes")).unwrap();
    let shards = fs::read_dir(bench.path("kept")).unwrap().map(|entry| entry.unwrap().file_name());
    let shards = shards.filter(|name| Path::new(name).extension().is_some_and(|end| end == "tar"));
    let pipes: Vec<PathBuf> = shards.map(|name| bench.path("pipes").join(name)).collect();
    assert_eq!(pipes.len(), 272);
    make_pipes(&pipes);
    symlink("kept", bench.path("shards")).unwrap();

    let run = |name: &'static str| {
        vec!["train", "tiny.yaml", "data.path=shards", "train.epochs=3", "train.log_every=1", name]
    };
    let bounded = ["train.checkpoint_every=1000000"];
    bench.ok(&[&run("run.name=whole")[..], &bounded].concat());
    let args = [&run("run.name=stuck")[..], &bounded].concat();
    let mut child = bench.command(&args).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("step 3/")));
    point_to(&bench.path("shards"), "pipes");
    wait_until_stuck(&bench.path("runs/stuck/metrics.jsonl"));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let asked = Instant::now();
    let rest: Vec<String> = lines.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest:?}");
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}: {rest:?}", asked.elapsed());
    assert!(rest.iter().any(|line| line.contains("not waiting any longer")), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume auto")), "{rest:?}");

    point_to(&bench.path("shards"), "kept");
    bench.ok(&[&args[..], &["--resume", "auto"]].concat());
    let state = |name| final_state(&bench.path(&format!("runs/{name}")), 51);
    assert!(state("whole") == state("stuck"));
}

#[test]
fn what_is_no_file_is_passed_over_and_named() {
    let bench = Bench::new();
    let odd = bench.path("images/images/odd");
    fs::create_dir(&odd).unwrap();
    make_pipes(&[odd.join("pipe.jpg")]);
    symlink("/dev/zero", odd.join("zero.png")).unwrap();
    fs::write(odd.join("photo.heic"), "x").unwrap();
    let table = bench.ok(&["data", "check", "images/images"]);
    for words in
        ["pipe.jpg: a pipe, not a file", "zero.png: a device", "1 file was left out: 1 .heic"]
    {
        assert!(table.contains(words), "{words} is not in {table}");
    }
    let output = bench.run(&["train", "tiny.yaml", "train.epochs=6"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("images/images: 1 file was left out: 1 .heic"), "{said}");
    let listed = fs::read_to_string(bench.path("runs/tiny/bad_images.tsv")).unwrap();
    for name in ["odd/pipe.jpg", "odd/zero.png"] {
        assert_eq!(listed.lines().filter(|line| line.contains(name)).count(), 1, "{listed}");
    }
}
