//! Tests of `simdino eval all`, with the real binary on drawn images.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::{Bench, SEGMENTED, draw_copies, draw_objects, draw_places, scene, stderr};
use image::{ImageBuffer, Luma};
use serde_json::Value;

/// Draws images for all protocols, next to a trained run.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml"]);
    bench.draw_scenes();
    draw_objects(&bench);
    draw_places(&bench);
    draw_copies(&bench);
    for folder in ["frames/a", "tracks/a", "depth"] {
        fs::create_dir_all(bench.path(folder)).unwrap();
    }
    (0..3).for_each(|i| scene(&bench.path("frames/a"), &bench.path("tracks/a"), i));
    for i in 0..3 {
        let value = |_, y: u32| Luma([(900 + 60 * y) as u16]);
        ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(48, 40, value)
            .save(bench.path(&format!("depth/{i}.png")))
            .unwrap();
    }
    let truth = r#"{"imlist": ["0", "1", "2"], "qimlist": ["4"], "gnd": [{"easy": [1], "hard": [2], "junk": []}]}"#;
    fs::write(bench.path("gnd.json"), truth).unwrap();
    bench
}

const ALL: [&str; 6] = ["eval", "all", "--weights", "runs/tiny", "--device", "cpu"];
const LABELED: [&str; 6] =
    ["--train", "images/images", "--test", "images/images", "--max-test", "2"];
const OBJECTS: [&str; 4] = ["--object-images", "objects", "--ground-truth", "truth.json"];
const PLACES: [&str; 6] =
    ["--retrieval-images", "places", "--retrieval-truth", "gnd.json", "--copydays", "copydays"];
const DEPTH: [&str; 10] = [
    "--depth-images",
    "frames/a",
    "--depth-maps",
    "depth",
    "--depth-test-images",
    "frames/a",
    "--depth-test-maps",
    "depth",
    "--depth-iterations",
    "5",
];

/// Returns the evaluations of the run.
fn evaluations(bench: &Bench) -> Vec<Value> {
    let results = fs::read_to_string(bench.path("runs/tiny/results.json")).unwrap();
    let mut results: Value = serde_json::from_str(&results).unwrap();
    serde_json::from_value(results["evaluations"].take()).unwrap()
}

#[test]
fn all_images_that_are_given_are_measured_in_one_table() {
    let bench = bench();
    let dense = [
        "--classes",
        "2",
        "--dense-crop",
        "32",
        "--segment-iterations",
        "10",
        "--segment-logistic",
    ];
    let videos = ["--frames", "frames", "--truth", "tracks", "--without", "linear,logistic"];
    let args =
        [&ALL[..], &LABELED, &SEGMENTED, &dense, &OBJECTS, &PLACES, &DEPTH, &videos].concat();
    let table = bench.ok(&args);
    let names = [
        "knn",
        "in-context",
        "segment-knn",
        "segment-logistic",
        "segment",
        "depth",
        "retrieval",
        "copy",
        "maskcut",
        "video",
    ];
    let rows = table.lines().skip(1).take_while(|line| !line.is_empty());
    let rows: Vec<&str> = rows.map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(rows, names, "{table}");
    assert!(table.contains("(mean map)") && table.contains("(pixels)"), "{table}");
    assert!(table.contains("\nsegment; 5 training images of 2 classes; 2 test images"), "{table}");
    assert!(table.contains("recipe dinov3; iterations 10"), "{table}");
    let records = evaluations(&bench);
    let protocols: Vec<&str> = records.iter().map(|r| r["protocol"].as_str().unwrap()).collect();
    assert_eq!(protocols, names);
    for record in &records {
        let rank = record["effective_rank"].as_f64().unwrap();
        assert!(rank >= 1.0 && rank >= record["effective_dimension"].as_f64().unwrap(), "{record}");
        assert!(record["baselines"]["untrained"].is_object(), "{record}");
    }
    assert_eq!([4, 5].map(|i| records[i]["settings"]["iterations"].as_u64()), [Some(10), Some(5)]);
    assert!(records[4]["notes"][0].as_str().unwrap().contains("once"), "{}", records[4]);
    bench.ok(&["report", "runs/tiny"]);
    let page = fs::read_to_string(bench.path("runs/tiny/report.html")).unwrap();
    assert!(names.iter().all(|name| page.contains(&format!("<td>{name}</td>"))), "all rows");
}

#[test]
fn a_protocol_that_fails_does_not_affect_the_others() {
    let bench = bench();
    for i in 0..3 {
        fs::write(bench.path(&format!("objects/{i}.png")), "no image").unwrap();
    }
    for name in ["original/200000", "original/200100", "strong/200001", "strong/200101"] {
        fs::write(bench.path(&format!("copydays/{name}.png")), "no image").unwrap();
    }
    let quick = [&ALL[..], &LABELED, &OBJECTS, &["--without", "linear,logistic"]].concat();
    let output = bench.run(&quick);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("skipped maskcut: ") && table.contains("knn "), "{table}");
    assert_eq!(output.status.code(), Some(1), "{table}");
    assert!(stderr(&output).contains("some protocols could not be measured"));
    let none = [&ALL[..], &OBJECTS, &["--copydays", "copydays"]].concat();
    let said = bench.fails(1, &none);
    assert!(said.contains("no protocol could be measured"), "{said}");
    // What is wrong with files is reported before anything is measured.
    fs::write(bench.path("truth.json"), "{").unwrap();
    let said = bench.fails(1, &[&ALL[..], &LABELED, &OBJECTS].concat());
    assert!(said.contains("maskcut: truth.json is not") && !said.contains("knn"), "{said}");
    let missing = [&ALL[..], &LABELED, &["--copydays", "nowhere"]].concat();
    let said = bench.fails(1, &missing);
    assert!(said.contains("--copydays nowhere: does not exist"), "{said}");
    for (args, says) in [
        (&["--classes", "2"][..], "no images given"),
        (
            &["--images", "train/images", "--classes", "2"],
            "also give --labels, --test-images, --test-labels",
        ),
        (&SEGMENTED, "--preset"),
        (&["--train", "images/images"], "--test"),
        (&["--retrieval-images", "places"], "--retrieval-truth"),
        (&DEPTH[..6], "--depth-test-maps"),
        (&["--depth-divisor", "256"], "--depth-images"),
        (&["--frames", "frames", "--truth", "tracks", "--without", "video"], "no protocol is left"),
    ] {
        let output = bench.run(&[&ALL[..], args].concat());
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(stderr(&output).contains(says), "{says}: {}", stderr(&output));
    }
}
