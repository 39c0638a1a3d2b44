//! Tests of a whole run, from images to the report, with the real binary.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::Bench;

/// Overrides for a run with a k-NN probe on its own images.
const PROBE: [&str; 5] = [
    "probe.train_path=images/images",
    "probe.test_path=images/images",
    "probe.every_epochs=1",
    "probe.k=5",
    "run.name=probed",
];

#[test]
fn a_run_leaves_everything_it_promises() {
    let bench = Bench::new();
    bench.ok(&[&["train", "tiny.yaml"][..], &PROBE].concat());
    let run = bench.path("runs/probed");
    for name in [
        "config.yaml",
        "config.resolved.yaml",
        "env.json",
        "metrics.jsonl",
        "metrics.csv",
        "checkpoints/latest",
        "checkpoints/step-00000010/manifest.json",
        "weights/teacher.safetensors",
        "results.json",
        "report.html",
        "pictures/crops.png",
        "pictures/pca.png",
        "log.txt",
    ] {
        let length = fs::metadata(run.join(name)).map(|m| m.len()).unwrap_or(0);
        assert!(length > 0, "{name} is missing or empty");
    }
    assert_eq!(fs::read_dir(run.join("tensorboard")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(run.join("checkpoints")).unwrap().count(), 4, "3 kept and latest");
    // The commit is that of the build, although the current folder is not in a repository.
    let environment = fs::read(run.join("env.json")).unwrap();
    let environment: serde_json::Value = serde_json::from_slice(&environment).unwrap();
    assert_eq!(environment["git_commit"].as_str(), option_env!("SIMDINO_COMMIT"));
    assert_eq!(environment.get("git_dirty").is_some(), option_env!("SIMDINO_COMMIT").is_some());
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    for fetched in ["src=\"http", "src=\"//", "url(http", "@import", "<link "] {
        assert!(!report.contains(fetched), "the report needs no network, and has {fetched}");
    }
}

#[test]
fn the_first_probe_is_the_untrained_baseline() {
    let bench = Bench::new();
    bench.ok(&[&["train", "tiny.yaml"][..], &PROBE].concat());
    let metrics = fs::read_to_string(bench.path("runs/probed/metrics.jsonl")).unwrap();
    let first: serde_json::Value = serde_json::from_str(metrics.lines().next().unwrap()).unwrap();
    let table = bench.ok(&[
        "eval",
        "knn",
        "--weights",
        "runs/probed",
        "--train",
        "images/images",
        "--test",
        "images/images",
        "--k",
        "5",
        "--json",
        "--device",
        "cpu",
    ]);
    let table: serde_json::Value = serde_json::from_str(table.lines().last().unwrap()).unwrap();
    assert_eq!(first["step"], 0);
    assert_eq!(first["probe/untrained"], table["untrained"], "the same network, seen both ways");
    assert_eq!(first["probe/pixels"], table["pixels"]);
    let last = metrics.lines().rfind(|l| l.contains("probe/knn_top1")).unwrap();
    let last: serde_json::Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["probe/knn_top1"], table["top1"], "the exported weights are the teacher's");

    // With equal training and test images, a regression almost without a penalty classifies all of
    // them.
    let mut regression = vec!["eval", "logistic", "--weights", "runs/probed", "--train"];
    regression.extend(["images/images", "--test", "images/images", "--c", "1e4", "--json"]);
    regression.extend(["--device", "cpu"]);
    let table = bench.ok(&regression);
    let table: serde_json::Value = serde_json::from_str(table.lines().last().unwrap()).unwrap();
    let number = |key: &str| table[key].as_f64().unwrap();
    assert!(number("top1") > 0.9 && (0.0..=1.0).contains(&number("untrained")), "{table}");
    let kept = fs::read_dir(bench.path("runs/probed/features")).unwrap().count();
    assert_eq!(kept, 2, "features of the network and of its untrained twin are kept");
    assert!(bench.ok(&regression).contains(table["results"]["trained"]["c"].to_string().as_str()));
}

#[test]
fn accumulation_does_not_change_the_objective() {
    let bench = Bench::new();
    // Without drop path, which draws different random numbers, the loss depends only on the batch.
    let loss = |name: &str, accumulate: &str| {
        let args = [
            "train",
            "tiny.yaml",
            "model.drop_path_rate=0",
            "train.stop_after=2",
            name,
            accumulate,
        ];
        bench.ok(&args);
        let file = format!("runs/{}/metrics.jsonl", name.trim_start_matches("run.name="));
        let text = fs::read_to_string(bench.path(&file)).unwrap();
        text.lines()
            .map(|l| {
                serde_json::from_str::<serde_json::Value>(l).unwrap()["loss/total"]
                    .as_f64()
                    .unwrap()
            })
            .collect::<Vec<f64>>()
    };
    let whole = loss("run.name=a1", "train.accumulate=1");
    let halves = loss("run.name=a2", "train.accumulate=2");
    assert_eq!((whole.len(), halves.len()), (2, 2));
    for (a, b) in whole.iter().zip(&halves) {
        assert!((a - b).abs() < 1e-5 * a.abs(), "{whole:?} {halves:?}");
    }
}

#[test]
fn the_number_of_loader_threads_changes_nothing() {
    let bench = Bench::new();
    let weights = |name: &str, workers: &str| {
        bench.ok(&["train", "tiny.yaml", "train.stop_after=3", name, workers]);
        common::final_state(&bench.path(&format!("runs/{}", &name["run.name=".len()..])), 3)
    };
    assert!(weights("run.name=w1", "data.workers=1") == weights("run.name=w3", "data.workers=3"));
}

#[test]
fn flat_folders_of_any_sizes_and_formats_train() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("flat")).unwrap();
    for i in 0..24u32 {
        let name = ["jpg", "png", "bmp", "webp", "tiff"][i as usize % 5];
        let picture = image::RgbImage::from_fn(20 + 7 * i, 300 - 9 * i, |x, y| {
            image::Rgb([(x * i) as u8, (y + i) as u8, (x ^ y) as u8])
        });
        picture.save(bench.path(&format!("flat/{i}.{name}"))).unwrap();
    }
    bench.ok(&["train", "tiny.yaml", "data.path=flat", "train.epochs=1"]);
    assert!(!bench.path("runs/tiny/bad_images.tsv").exists());
}
