//! Tests of several processes of the real binary over Gloo: they train the same weights as one
//! process, resume with a different number of processes, and name missing ones.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers outside of tests")]

mod common;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::{Bench, COMPARABLE, lines, stderr};

const METHODS: [(&str, &[&str]); 4] = [
    ("simdino", &["simdino.rate_groups=4"]),
    ("simdinov2", &["simdino.rate_groups=4"]),
    ("dino", &["head.prototypes=32"]),
    ("dinov2", &["head.prototypes=32", "koleo.groups=4"]),
];

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Starts the same command as each of `size` processes.
fn start(bench: &Bench, args: &[&str], size: usize) -> Vec<Child> {
    let port = free_port();
    (0..size).map(|rank| start_one(bench, args, (rank, size), ("127.0.0.1", port))).collect()
}

/// Starts process `rank` of `size` alone.
fn start_one(
    bench: &Bench,
    args: &[&str],
    (rank, size): (usize, usize),
    (host, port): (&str, u16),
) -> Child {
    let mut command = bench.command(args);
    command.envs(launched((rank, size), (host, port)));
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Returns the environment variables that torchrun sets for process `rank` of `size`.
fn launched(
    (rank, size): (usize, usize),
    (host, port): (&str, u16),
) -> [(&'static str, String); 5] {
    [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", size.to_string()),
        ("MASTER_ADDR", host.to_owned()),
        ("MASTER_PORT", port.to_string()),
    ]
}

/// Waits for each process, and returns its exit code and standard error.
fn finish(children: Vec<Child>) -> Vec<(Option<i32>, String)> {
    let ended = children.into_iter().map(|child| child.wait_with_output().unwrap());
    ended.map(|output| (output.status.code(), stderr(&output))).collect()
}

/// Trains in `size` processes, all of which must succeed.
fn train(bench: &Bench, method: &str, name: &str, extra: &[&str], size: usize) {
    let (method, run) = (format!("method={method}"), format!("run.name={name}"));
    let args = [&["train", "tiny.yaml", &method, &run], extra, &COMPARABLE].concat();
    for (rank, (code, said)) in finish(start(bench, &args, size)).into_iter().enumerate() {
        assert_eq!(code, Some(0), "{name}, process {rank} of {size}: {said}");
    }
}

fn losses(bench: &Bench, name: &str) -> Vec<f64> {
    lines(bench, name).iter().map(|line| line["loss/total"].as_f64().unwrap()).collect()
}

fn close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (step, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() < 1e-5 * b.abs(), "{what}, step {}: {a}, expected {b}", step + 1);
    }
}

#[test]
fn two_and_four_processes_train_what_one_does() {
    let bench = Bench::new();
    for (method, extra) in METHODS {
        let name = |size: usize| format!("{method}-{size}");
        let extra = [extra, &["train.epochs=10"]].concat(); // 50 steps
        for size in [1, 2, 4] {
            train(&bench, method, &name(size), &extra, size);
        }
        let one = losses(&bench, &name(1));
        assert_eq!(one.len(), 50);
        for size in [2, 4] {
            close(&name(size), &losses(&bench, &name(size)), &one);
            same_weights(&bench, &name(size), &name(1));
        }
    }
}

/// Compares all weights together. Individual tensors may differ: the gradient of the bias of the
/// keys is only rounding noise, which AdamW scales up to full steps.
fn same_weights(bench: &Bench, name: &str, expected: &str) {
    let read = |name: &str| {
        let path = bench.path(&format!("runs/{name}/weights/teacher.safetensors"));
        model::weights::read_safetensors(&path).unwrap().tensors
    };
    let (got, expected) = (read(name), read(expected));
    assert_eq!(got.len(), expected.len());
    let square = |x: &tch::Tensor| x.square().sum(tch::Kind::Double).double_value(&[]);
    let difference: f64 = expected.iter().map(|(key, x)| square(&(&got[key] - x))).sum();
    let whole: f64 = expected.values().map(square).sum();
    assert!(difference.sqrt() < 1e-5 * whole.sqrt(), "{name}: {}", (difference / whole).sqrt());
}

#[test]
fn a_run_goes_on_in_another_number_of_processes() {
    let bench = Bench::new();
    let (method, extra) = METHODS[3];
    train(&bench, method, "whole", extra, 1);
    let first = [extra, &["train.stop_after=4"]].concat();
    train(&bench, method, "moved", &first, 2);
    let rest = [extra, &["--resume", "auto"]].concat();
    train(&bench, method, "moved", &rest, 4);
    close("moved", &losses(&bench, "moved"), &losses(&bench, "whole"));
    // One process continues what four have begun.
    train(&bench, method, "back", &[extra, &["train.stop_after=7"]].concat(), 4);
    train(&bench, method, "back", &rest, 1);
    close("back", &losses(&bench, "back"), &losses(&bench, "whole"));
}

/// Returns the first class folder.
fn first_class(bench: &Bench) -> std::path::PathBuf {
    let folders = std::fs::read_dir(bench.path("images/images")).unwrap();
    folders.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).min().unwrap()
}

/// Returns the metrics of probes with their steps.
fn probed(bench: &Bench, name: &str) -> Vec<(u64, Vec<(String, f64)>)> {
    let of = |line: serde_json::Value| {
        let values = line.as_object().unwrap().iter();
        let values = values.filter(|(key, _)| key.starts_with("probe/"));
        let values = values.map(|(key, value)| (key.clone(), value.as_f64().unwrap()));
        (line["step"].as_u64().unwrap(), values.collect::<Vec<_>>())
    };
    let lines = lines(bench, name).into_iter().map(of);
    lines.filter(|(_, values)| !values.is_empty()).collect()
}

#[test]
fn processes_share_the_probes() {
    let bench = Bench::new();
    bench.draw_scenes();
    std::fs::write(first_class(&bench).join("z.png"), b"no picture").unwrap();
    let (method, groups) = METHODS[0];
    // There are fewer test images than processes: one to classify, and two to segment.
    let probe = [
        "probe.train_path=images/images",
        "probe.test_path=images/images",
        "probe.every_epochs=1",
        "probe.max_test=1",
        "probe.logistic.every_epochs=1",
        "probe.rank.every_epochs=0.4",
        "probe.segment.every_epochs=1",
        "probe.segment.images=train/images",
        "probe.segment.labels=train/labels",
        "probe.segment.test_images=test/images",
        "probe.segment.test_labels=test/labels",
        "probe.segment.classes=2",
        "train.epochs=1",
    ];
    let extra = [groups, &probe].concat();
    for size in [1, 2, 4] {
        train(&bench, method, &format!("shared-{size}"), &extra, size);
    }
    let expected = probed(&bench, "shared-1");
    let steps: Vec<u64> = expected.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [0, 2, 4, 5]);
    assert_eq!(expected[0].1.len(), 7, "{expected:?}");
    for size in [2, 4] {
        let got = probed(&bench, &format!("shared-{size}"));
        assert_eq!(got.len(), expected.len());
        for ((step, got), (expected_step, expected)) in got.iter().zip(&expected) {
            assert_eq!((step, got.len()), (expected_step, expected.len()), "{size} processes");
            for ((key, got), (expected_key, expected)) in got.iter().zip(expected) {
                let close = (got - expected).abs() <= 1e-3 * expected.abs();
                assert!(key == expected_key && close, "{size} processes, {key}: {got}, {expected}");
            }
        }
    }
}

#[test]
fn probes_that_one_process_cannot_open_end_all() {
    let bench = Bench::new();
    let labeled = ["probe.train_path=images/images", "probe.test_path=images/images"];
    let good = [&["train", "tiny.yaml", "run.timeout_s=60"][..], &labeled, &COMPARABLE].concat();
    let bad = [&good[..], &["probe.test_path=nowhere"]].concat();
    let port = free_port();
    let started = [(&good, 0), (&bad, 1)];
    let children =
        started.map(|(args, rank)| start_one(&bench, args, (rank, 2), ("127.0.0.1", port)));
    for (code, said) in finish(children.into()) {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("probe.test_path: "), "{said}");
    }
}

/// A SLURM batch script without srun starts the program with the variables of one of several tasks.
#[test]
fn a_process_that_waits_for_others_says_so() {
    let bench = Bench::new();
    let port = free_port().to_string();
    let slurm = [("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4"), ("SLURM_LOCALID", "0")];
    let place = [("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", port.as_str())];
    let args = ["train", "tiny.yaml", "simdino.rate_groups=4", "run.timeout_s=1"];
    let output = bench.command(&args).envs(slurm).envs(place).output().unwrap();
    let (said, waiting) = (stderr(&output), "waiting for 3 other processes at 127.0.0.1:");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with(&format!("simdino: {waiting}{port}\n")), "{said}");
    assert!(said.contains("processes 1, 2, 3 did not join"), "{said}");
}

#[test]
fn each_process_says_where_it_is_and_what_it_met() {
    let bench = Bench::new();
    std::fs::write(bench.path("images/images/broken.png"), b"no picture").unwrap();
    train(&bench, "simdino", "named", &["train.epochs=1"], 2);
    let log = std::fs::read_to_string(bench.path("runs/named/log.txt")).unwrap();
    for rank in 0..2 {
        assert!(log.contains(&format!("process {rank} of 2: ")), "{log}");
    }
    assert!(bench.path("runs/named/log.1.txt").is_file());
    let met =
        ["bad_images.tsv", "bad_images.1.tsv"].map(|name| bench.path("runs/named").join(name));
    let met: Vec<&PathBuf> = met.iter().filter(|path| path.is_file()).collect();
    assert_eq!(met.len(), 1, "one process has met the broken image: {met:?}");
}

#[test]
fn a_batch_that_cannot_be_shared_is_refused_by_all() {
    let bench = Bench::new();
    for args in [&["train", "tiny.yaml"][..], &["train", "tiny.yaml", "--dry-run"]] {
        for (code, said) in finish(start(&bench, args, 3)) {
            assert_eq!(code, Some(2), "{said}");
            assert!(said.contains("train.batch_size: must be a multiple of 3"), "{said}");
            assert!(said.contains("simdino.rate_groups: must be a multiple of 3"), "{said}");
        }
    }
    let fits = finish(start(&bench, &["train", "tiny.yaml", "--dry-run"], 2));
    assert!(fits.iter().all(|(code, _)| *code == Some(0)), "{fits:?}");
    assert!(fits[1].1.is_empty(), "one process speaks: {fits:?}");
    let twice = ["train", "tiny.yaml", "--dry-run", "--processes", "4"];
    for (code, said) in finish(start(&bench, &twice, 2)) {
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("--processes: cannot be used with a launcher"), "{said}");
    }
}

#[test]
fn a_dry_run_measures_the_exchanges_of_its_processes() {
    let bench = Bench::new();
    let args = ["train", "tiny.yaml", "--dry-run"];
    let port = free_port();
    let mut children = (0..2).map(|rank| {
        let mut command = bench.command(&args);
        command.envs(launched((rank, 2), ("127.0.0.1", port)));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    });
    let (first, second) = (children.next().unwrap(), children.next().unwrap());
    let [first, second] = [first, second].map(|child| child.wait_with_output().unwrap());
    assert!(first.status.success() && second.status.success(), "{}", stderr(&first));
    let said = String::from_utf8(first.stdout).unwrap();
    assert!(said.contains("gradients, ") && said.contains("during the backward pass"), "{said}");
    assert!(said.contains("per step with 2 processes (measured here: "), "{said}");
    assert!(second.stdout.is_empty() && !bench.path("runs").exists());
}

#[test]
fn a_dry_run_says_which_processes_do_not_join() {
    let bench = Bench::new();
    let args = ["train", "tiny.yaml", "--dry-run", "run.timeout_s=3"];
    let alone = start_one(&bench, &args, (0, 2), ("127.0.0.1", free_port()));
    let (code, said) = finish(vec![alone]).pop().unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("process 0 of 2") && said.contains("process 1 did not join"), "{said}");
}

#[test]
fn a_meeting_place_that_is_none_is_one_sentence() {
    let bench = Bench::new();
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = silent.local_addr().unwrap().port();
    for (rank, place, words) in [
        (1, ("127.0.0.1", taken), "the program listening there does not reply"),
        (0, ("127.0.0.1", taken), "another program is already listening on this port"),
        (1, ("127.0.0.1", free_port()), "cannot connect"),
        (1, ("no host", 29_500), "no host has no address"),
    ] {
        let args = ["train", "tiny.yaml", "run.timeout_s=4"];
        let (code, said) = finish(vec![start_one(&bench, &args, (rank, 2), place)]).pop().unwrap();
        assert_eq!((code, said.lines().count()), (Some(1), 2 - rank), "{said}");
        let start = format!("simdino: process {rank} of 2 at {}:{}: ", place.0, place.1);
        let sentence = said.lines().last().unwrap();
        assert!(sentence.starts_with(&start) && sentence.contains(words), "{said}");
    }
    assert!(!bench.path("runs").exists(), "nothing was begun");
}

#[test]
fn a_process_that_dies_is_named_by_the_others() {
    let bench = Bench::new();
    let args = ["train", "tiny.yaml", "train.epochs=5000", "run.timeout_s=60"];
    let mut children = start(&bench, &args, 2);
    let victim = children.pop().unwrap();
    let survivor = children.pop().unwrap();
    bench.wait_for_line("runs/tiny/log.txt", "step 3/");
    kill(&victim, "-KILL");
    assert!(!victim.wait_with_output().unwrap().status.success());
    let (code, said) = finish(vec![survivor]).pop().unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("process 0 of 2") && said.contains("process 1"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn the_reason_of_a_process_that_fails_reaches_the_others() {
    let bench = Bench::new();
    let extra = ["optim.base_lr=1e25", "optim.warmup_epochs=0", "train.max_skipped_steps=1"];
    let args = [&["train", "tiny.yaml"][..], &extra].concat();
    for (code, said) in finish(start(&bench, &args, 2)) {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("not finite at step"), "{said}");
    }
    for name in ["lost_batch.txt", "lost_batch.1.txt"] {
        let names = std::fs::read_to_string(bench.path("runs/tiny").join(name)).unwrap();
        assert_eq!(names.lines().count(), 1 + 8, "{name} has this process's images: {names}");
    }
}

#[test]
fn a_signal_to_one_process_stops_all_with_a_checkpoint() {
    let bench = Bench::new();
    let extra = ["train.epochs=5000", "train.checkpoint_every=1000000"];
    let mut children = start(&bench, &[&["train", "tiny.yaml"][..], &extra].concat(), 2);
    bench.wait_for_line("runs/tiny/log.txt", "step 3/");
    kill(&children[1], "-TERM");
    let second = finish(children.split_off(1));
    assert!(bench.path("runs/tiny/checkpoints/latest").is_file());
    for (code, said) in second.into_iter().chain(finish(children)) {
        assert_eq!(code, Some(3), "{said}");
    }
}

fn kill(child: &Child, signal: &str) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
}

/// Returns the path of torchrun in the repository's `.venv` or on the PATH.
fn torchrun() -> Option<PathBuf> {
    let own = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.venv/bin/torchrun"));
    let found = own.is_file().then_some(own);
    found.or_else(|| {
        let path = std::env::var_os("PATH")?;
        std::env::split_paths(&path).map(|dir| dir.join("torchrun")).find(|file| file.is_file())
    })
}

#[test]
fn torchrun_starts_again_what_has_died() {
    let Some(torchrun) = torchrun() else {
        eprintln!("skipped: no torchrun in .venv or on the PATH");
        return;
    };
    let bench = Bench::new();
    let (method, extra) = METHODS[0];
    train(&bench, method, "whole", &[extra, &["train.epochs=10"]].concat(), 1);
    let mut command = Command::new(torchrun);
    command.args(["--no-python", "--standalone", "--nproc-per-node=2", "--max-restarts=2"]);
    command.arg(env!("CARGO_BIN_EXE_simdino")).args(["train", "tiny.yaml", "run.name=again"]);
    command.args(extra).args(COMPARABLE).args(["train.epochs=10", "--resume", "auto"]);
    command.current_dir(bench.path("")).stdout(Stdio::null()).stderr(Stdio::piped());
    let launcher = command.spawn().unwrap();
    bench.wait_for_line("runs/again/log.txt", "step 20/");
    let workers = children_of(launcher.id());
    assert_eq!(workers.len(), 2, "torchrun has two workers");
    assert!(Command::new("kill").args(["-KILL", &workers[1]]).status().unwrap().success());
    let output = launcher.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let log = std::fs::read_to_string(bench.path("runs/again/log.txt")).unwrap();
    assert!(log.contains("continuing"), "it was started again from a checkpoint: {log}");
    close("again", &losses(&bench, "again"), &losses(&bench, "whole"));
}

/// Returns the process IDs of the children of a process.
fn children_of(parent: u32) -> Vec<String> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    std::fs::read_to_string(path).unwrap().split_whitespace().map(str::to_owned).collect()
}
