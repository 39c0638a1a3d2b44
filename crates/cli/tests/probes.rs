//! Tests of the probes of a run, with the real binary on drawn images.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Bench, final_state, kill_at, lines, stderr};
use serde_json::Value;

const LABELED: [&str; 2] = ["probe.train_path=images/images", "probe.test_path=images/images"];

const SEGMENT: [&str; 6] = [
    "probe.segment.images=train/images",
    "probe.segment.labels=train/labels",
    "probe.segment.test_images=test/images",
    "probe.segment.test_labels=test/labels",
    "probe.segment.classes=2",
    "probe.segment.side=32",
];

/// Schedules of all probes, each at different ones of the ten steps.
const EVERY: [&str; 4] = [
    "probe.every_epochs=1",
    "probe.logistic.every_epochs=null",
    "probe.rank.every_epochs=0.4",
    "probe.segment.every_epochs=0.8",
];

/// The metrics, and the steps at which [`EVERY`] measures them.
const STEPS: [(&str, &[u64]); 7] = [
    ("probe/knn_top1", &[0, 5, 10]),
    ("probe/untrained", &[0]),
    ("probe/pixels", &[0]),
    ("probe/logistic_top1", &[0, 10]),
    ("probe/effective_rank", &[0, 2, 4, 6, 8, 10]),
    ("probe/effective_dimension", &[0, 2, 4, 6, 8, 10]),
    ("probe/segment_knn_miou", &[0, 4, 8, 10]),
];

fn bench() -> Bench {
    let bench = Bench::new();
    bench.draw_scenes();
    bench
}

fn all() -> Vec<&'static str> {
    [&LABELED[..], &SEGMENT, &EVERY].concat()
}

fn train<'a>(name: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["train", "tiny.yaml", name], more].concat()
}

/// Returns the metrics lines of probes.
fn probed(bench: &Bench, name: &str) -> Vec<Value> {
    let is_probe = |line: &Value| line.as_object().unwrap().keys().any(|k| k.starts_with("probe/"));
    lines(bench, name).into_iter().filter(is_probe).collect()
}

/// Returns the steps at which a metric was measured.
fn steps(lines: &[Value], key: &str) -> Vec<u64> {
    let found = lines.iter().filter(|line| line[key].is_number());
    found.map(|line| line["step"].as_u64().unwrap()).collect()
}

#[test]
fn each_probe_has_its_own_timetable_and_its_curve() {
    let bench = bench();
    let said = bench.run(&train("run.name=all", &all()));
    assert!(said.status.success(), "{}", stderr(&said));
    for words in ["logistic regression ", "effective dimension ", "segmentation mIoU "] {
        assert!(stderr(&said).contains(words), "{}", stderr(&said));
    }
    let found = probed(&bench, "all");
    for (key, expected) in STEPS {
        assert_eq!(steps(&found, key), expected, "{key}");
    }
    for line in &found {
        let share = |key: &str| line[key].as_f64().is_none_or(|x| (0.0..=1.0).contains(&x));
        assert!(STEPS.iter().all(|(key, _)| key.contains("effective") || share(key)), "{line}");
        let of = |key: &str| line[key].as_f64();
        if let (Some(rank), Some(dimension)) = (of(STEPS[4].0), of(STEPS[5].0)) {
            assert!(rank >= dimension && dimension >= 1.0, "{line}");
        }
    }
    // Bright and dark halves are easy to tell apart.
    assert!(found[0]["probe/segment_knn_miou"].as_f64().unwrap() > 0.5, "{}", found[0]);
    let table = fs::read_to_string(bench.path("runs/all/metrics.csv")).unwrap();
    let head = table.lines().next().unwrap();
    assert!(STEPS.iter().all(|(key, _)| head.split(',').any(|name| name == *key)), "{head}");
    let charts = [
        "k-NN accuracy during training",
        "Logistic regression during training",
        "Segmentation during training",
    ];
    let page = fs::read_to_string(bench.path("runs/all/report.html")).unwrap();
    for text in charts.iter().chain(&["Dimensionality of the features", "at the start"]) {
        assert!(page.contains(text), "{text}");
    }
    bench.ok(&["report", "runs/all", "runs/all", "--out", "both.html"]);
    let page = fs::read_to_string(bench.path("both.html")).unwrap();
    for text in charts.iter().chain(&["Effective dimension of the features"]) {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn the_last_probes_are_what_an_evaluation_of_the_weights_says() {
    let bench = bench();
    let ends = ["probe.segment.every_epochs=null", "probe.rank.every_epochs=null"];
    bench.ok(&train("run.name=ends", &[&LABELED[..], &SEGMENT, &ends].concat()));
    let found = probed(&bench, "ends");
    let last = found.last().unwrap();
    let eval = |protocol, more: &[&str]| -> Value {
        let args = ["eval", protocol, "--weights", "runs/ends", "--json", "--device", "cpu"];
        let said = bench.ok(&[&args[..], more].concat());
        serde_json::from_str(said.lines().last().unwrap()).unwrap()
    };
    let sets = ["--images", "train/images", "--labels", "train/labels"];
    let tests = ["--test-images", "test/images", "--test-labels", "test/labels"];
    let sizes = ["--classes", "2", "--crop", "32", "--classifier", "knn"];
    let record = eval("segment-knn", &[&sets[..], &tests, &sizes].concat());
    assert_eq!(record[0]["metrics"]["miou"], last["probe/segment_knn_miou"], "{record}");
    let labeled = ["--train", "images/images", "--test", "images/images", "--k", "20"];
    let record = eval("knn", &labeled);
    assert_eq!(record["top1"], last["probe/knn_top1"], "{record}");
    let kept = fs::read(bench.path("runs/ends/results.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let records = kept["evaluations"].as_array().unwrap();
    let record = records.iter().find(|record| record["protocol"] == "knn").unwrap();
    for (kept, probed) in [("effective_rank", STEPS[4].0), ("effective_dimension", STEPS[5].0)] {
        let [kept, probed] = [&record[kept], &last[probed]].map(|x| x.as_f64().unwrap());
        assert!((kept - probed).abs() < 1e-6 * probed, "{record} {last}");
    }
}

#[test]
fn a_dry_run_lists_the_probes_and_their_steps() {
    let bench = bench();
    let none = bench.ok(&["train", "tiny.yaml", "--dry-run"]);
    assert!(none.contains("probe          none\n"), "{none}");
    let listed = bench.ok(&train("--dry-run", &all()));
    let by = "80 images in images/images";
    for line in [
        format!(
            "probe          k-NN, tested on {by}, with neighbors from {by}: at steps 0, 5, 10\n"
        ),
        format!(
            "probe          logistic regression, tested on {by}, trained on {by}: at steps 0, 10\n"
        ),
        format!(
            "probe          effective rank and dimension of {by}: at steps 0, 2, 4, 6, 8, 10\n"
        ),
        "probe          segmentation at 32 pixels, tested on 2 images in test/images, with \
         neighbors from 5 images in train/images: at steps 0, 4, 8, 10\n"
            .to_owned(),
    ] {
        assert!(listed.contains(&line), "{line}\n{listed}");
    }
    let often = bench.ok(&train("--dry-run", &["probe.rank.every_epochs=0.2"]));
    let line = "of 80 images in images/images: at step 0, every step, and at step 10 (11 times)";
    assert!(often.contains(line), "{often}");
    assert!(!bench.path("runs").exists());
}

#[test]
fn probes_do_not_change_the_training() {
    let bench = bench();
    bench.ok(&train("run.name=without", &[]));
    bench.ok(&train("run.name=with", &all()));
    let state = |name: &str| final_state(&bench.path(&format!("runs/{name}")), 10);
    for ((part, expected), (_, got)) in state("without").iter().zip(&state("with")) {
        assert!(expected == got, "{part} differs");
    }
}

#[test]
fn a_killed_run_has_the_same_probes_bit_for_bit() {
    let bench = bench();
    bench.ok(&train("run.name=whole", &all()));
    let expected = probed(&bench, "whole");
    // Kill the run before the first checkpoint, right after a probe, and between two probes.
    for (name, marker) in
        [("killed-1", "step 2 epoch"), ("killed-2", "step 4 epoch"), ("killed-3", "step 9/")]
    {
        kill_at(&bench, &train(&format!("run.name={name}"), &all()), marker);
        assert_eq!(probed(&bench, name), expected, "{marker}");
    }
}

#[test]
fn a_probe_that_a_signal_leaves_out_is_measured_first_when_the_run_goes_on() {
    let bench = Bench::new();
    // Every step has a probe, so a probe is due wherever the run stops.
    let probe = ["probe.rank.every_epochs=0.2", "train.checkpoint_every=1000000"];
    let args = train("run.name=stopped", &probe);
    let long = [&args[..], &["train.epochs=2000"]].concat();
    let mut child = bench.command(&long).stderr(Stdio::piped()).spawn().unwrap();
    let said = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = said.map_while(Result::ok);
    assert!(said.by_ref().any(|line| line.contains("step 3/")));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let rest: Vec<String> = said.collect();
    assert_eq!(child.wait().unwrap().code(), Some(3), "{rest:?}");
    let at = fs::read_to_string(bench.path("runs/stopped/checkpoints/latest")).unwrap();
    let state = bench.path(&format!("runs/stopped/checkpoints/{at}/state.json"));
    let state: Value = serde_json::from_slice(&fs::read(state).unwrap()).unwrap();
    assert_eq!(state["probes_missing"], true, "{state}");
    let step = state["step"].as_u64().unwrap();
    assert_eq!(steps(&probed(&bench, "stopped"), STEPS[4].0), (0..step).collect::<Vec<_>>());
    // The run continues twice from the same checkpoint, and each probe is recorded once.
    let stop = format!("train.stop_after={}", step + 2);
    let more = [&long[..], &[&stop, "--resume"]].concat();
    let checkpoint = format!("runs/stopped/checkpoints/{at}");
    for _ in 0..2 {
        bench.ok(&[&more[..], &[&checkpoint]].concat());
        assert_eq!(
            steps(&probed(&bench, "stopped"), STEPS[4].0),
            (0..step + 3).collect::<Vec<_>>()
        );
        assert!(
            starts_session_at(&bench.path("runs/stopped/tensorboard"), step),
            "TensorBoard has to discard the probes of step {step}, which are written again"
        );
    }
}

/// Returns whether the last TensorBoard file contains the start of a session at `step`, which must
/// be below 128^2.
fn starts_session_at(folder: &Path, step: u64) -> bool {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let bytes = fs::read(files.max().unwrap()).unwrap();
    let step = match step {
        0..128 => vec![step as u8],
        _ => vec![step as u8 | 0x80, (step >> 7) as u8],
    };
    // In the protocol buffer of an event, field 2 is the step, and field 7 is the session log.
    let event = [&[0x10][..], &step, &[0x3A, 2, 8, 1]].concat();
    bytes.windows(event.len()).any(|window| window == event)
}

#[test]
fn images_without_labels_are_enough_for_the_rank() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("flat")).unwrap();
    for i in 0..40u32 {
        let picture = image::RgbImage::from_fn(32, 32, |x, y| {
            image::Rgb([(x * i) as u8, (y + 6 * i) as u8, (x ^ y) as u8])
        });
        picture.save(bench.path(&format!("flat/{i}.png"))).unwrap();
    }
    fs::write(bench.path("flat/z.png"), b"no picture").unwrap();
    let rank = ["data.path=flat", "probe.rank.every_epochs=null"];
    let output = bench.run(&train("run.name=data", &rank));
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    let broken = "data.path: 1 of 41 images in flat could not be read and will be skipped; the first is \
         z.png";
    assert_eq!(said.matches(broken).count(), 1, "said once: {said}");
    let values = probed(&bench, "data");
    assert_eq!(steps(&values, STEPS[4].0), [0, 4]);
    assert!(values.iter().all(|line| line["probe/knn_top1"].is_null()), "{values:?}");
    // With fewer images, the rank is at most their number.
    let other = ["probe.rank.path=flat", "probe.rank.max_images=3"];
    bench.ok(&train("run.name=other", &[&rank[..], &other].concat()));
    let line = &probed(&bench, "other")[0];
    assert!(line["probe/effective_rank"].as_f64().unwrap() <= 3.0 + 1e-9, "{line}");
    let page = fs::read_to_string(bench.path("runs/data/report.html")).unwrap();
    assert!(page.contains("Dimensionality of the") && page.contains("effective dimension"));
}

/// Creates four images of two classes in `few`, and an image without a label in `flat`.
fn few_images(bench: &Bench) {
    for (folder, count) in [("few/one", 3), ("few/two", 1), ("flat", 1)] {
        let folder = bench.path(folder);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..count {
            fs::copy(bench.path("train/images/0.png"), folder.join(format!("{i}.png"))).unwrap();
        }
    }
}

/// Checks that a run is rejected with a single sentence before anything is trained. `begun` is
/// whether its folder exists by then, because an image had to be read to find the mistake.
fn refused(bench: &Bench, args: &[&str], (code, expected): (i32, &str), begun: bool) {
    let message = bench.fails(code, &train("run.name=refused", args));
    let sentences: Vec<&str> = message.lines().filter(|line| line.contains("simdino: ")).collect();
    assert!(sentences.len() == 1 && sentences[0].contains(expected), "{expected}: {message}");
    let run = bench.path("runs/refused");
    assert_eq!(run.exists(), begun, "{expected}");
    assert!(!run.join("checkpoints").exists(), "{expected}");
    let _ = fs::remove_dir_all(run);
}

#[test]
fn labels_that_cannot_be_learned_are_refused_at_the_start() {
    let bench = bench();
    few_images(&bench);
    let logistic = "probe.logistic.every_epochs=1";
    for (train, test, more, expected) in [
        ("nowhere", "few", "", "probe.train_path: "),
        ("few", "nowhere", "", "probe.test_path: "),
        ("flat", "few", "", "probe.train_path: the training images have no labels"),
        ("few", "flat", "", "probe.test_path: the test images have no labels"),
        ("few", "few", "probe.max_train=1", "probe.train_path: the 1 labeled training images all"),
        ("few", "images/images", "", "probe.test_path: the test set has classes that the train"),
        ("few", "few", logistic, "probe.train_path: 4 labeled images are too few"),
    ] {
        let paths = [format!("probe.train_path={train}"), format!("probe.test_path={test}")];
        let args = [paths[0].as_str(), paths[1].as_str(), more];
        let args: Vec<&str> = args.into_iter().filter(|word| !word.is_empty()).collect();
        refused(&bench, &args, (1, expected), false);
    }
    refused(&bench, &[logistic], (2, "probe.train_path: required by probe.logistic"), false);
}

#[test]
fn images_that_cannot_be_measured_are_refused_at_the_start() {
    let bench = bench();
    few_images(&bench);
    fs::create_dir(bench.path("blank")).unwrap();
    for i in 0..5 {
        let ignored = image::GrayImage::from_pixel(48, 40, image::Luma([255]));
        ignored.save(bench.path(&format!("blank/{i}.png"))).unwrap();
    }
    let rank = ["probe.rank.every_epochs=1", "probe.rank.path=flat"];
    let few = "probe.rank.path: probe.rank needs at least 2 images (got 1 in flat)";
    refused(&bench, &rank, (1, few), false);
    for (word, code, expected, begun) in [
        ("probe.segment.test_labels=null", 2, "probe.segment.test_labels: required", false),
        ("probe.segment.preset=camvid", 2, "probe.segment.classes: set exactly one of ", false),
        ("probe.segment.labels=flat", 1, "probe.segment.images: ", false),
        ("probe.segment.test_images=nowhere", 1, "probe.segment.test_images: ", false),
        ("probe.segment.memory=4", 1, "probe.segment.memory: must be at least 5, one patch", false),
        ("probe.segment.classes=1", 1, "probe.segment.images: none of the 5 images", true),
        ("probe.segment.labels=blank", 1, "probe.segment.labels: every pixel", true),
    ] {
        let on = ["probe.segment.every_epochs=1", word];
        refused(&bench, &[&SEGMENT[..], &on].concat(), (code, expected), begun);
    }
}

#[test]
fn broken_images_cost_only_themselves() {
    let bench = bench();
    fs::write(bench.path("images/images/checked_square/z.png"), b"no picture").unwrap();
    fs::write(bench.path("train/images/0.png"), b"no picture").unwrap();
    fs::write(bench.path("test/labels/1.png"), b"no picture").unwrap();
    let output = bench.run(&train("run.name=broken", &all()));
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    for text in [
        "probe.train_path: 1 of 81 images in images/images could not be read",
        "probe.test_path: 1 of 81 images in images/images could not be read",
        "probe.segment.images: 1 of 5 images in train/images could not be read",
        "probe.segment.test_images: 1 of 2 images in test/images could not be read",
    ] {
        assert_eq!(said.matches(text).count(), 1, "{text}: {said}");
    }
    assert_eq!(steps(&probed(&bench, "broken"), "probe/segment_knn_miou"), STEPS[6].1);
}

#[test]
fn a_run_that_begins_from_weights_has_no_untrained_network_at_its_start() {
    let bench = bench();
    bench.ok(&train("run.name=first", &LABELED));
    let more = ["init.from=runs/first", "train.stop_after=1"];
    bench.ok(&train("run.name=second", &[&LABELED[..], &more].concat()));
    let first = &probed(&bench, "second")[0];
    assert!(first["probe/knn_top1"].is_number() && first["probe/pixels"].is_number(), "{first}");
    assert!(first["probe/untrained"].is_null(), "{first}");
}
