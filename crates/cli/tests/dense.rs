//! Tests of dense evaluations, retrieval, and MaskCut, with the real binary on drawn images.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{Bench, SEGMENTED, draw_copies, draw_objects, draw_places, last_record, stderr};
use serde_json::Value;

/// Returns a bench with a trained run, and with images of two classes: a bright top and a dark
/// bottom.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml"]);
    bench.draw_scenes();
    bench
}

fn eval<'a>(protocol: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let common = ["--weights", "runs/tiny", "--crop", "32", "--json"];
    [["eval", protocol].as_slice(), &common, &SEGMENTED, more].concat()
}

#[test]
fn segmentation_is_measured_and_kept() {
    let bench = bench();
    let classes = ["--classes", "2"];
    let short: &[&str] = &["--iterations", "30", "--batch", "2", "--picture", "new/seen.png"];
    let record = last_record(&bench.ok(&eval("segment", &[&classes, short].concat())));
    assert!(record["metrics"]["miou"].as_f64().unwrap() > 0.5, "{record}");
    assert!(record["baselines"]["untrained"]["miou"].is_number(), "{record}");
    assert_eq!(
        (record["settings"]["recipe"].as_str(), record["crop"].as_u64()),
        (Some("dinov3"), Some(32))
    );
    assert_eq!(record["settings"]["labels"], "2 classes from 0, [255] ignored");
    // Images of 48 x 40 are drawn as 288 x 240, above the rows of the truth, the network, and the
    // same network untrained.
    let sheet = image::open(bench.path("new/seen.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (2 * 292 + 4, 244 + 3 * (22 + 244) + 4));
    // The head is trained only once, and the second record replaces the first.
    let again = bench.run(&eval("segment", &[&classes, short].concat()));
    assert!(stderr(&again).contains("resumed at iteration 30"), "{}", stderr(&again));
    let record = last_record(&bench.ok(&eval("in-context", &classes)));
    assert!(record["metrics"]["miou"].as_f64().unwrap() > 0.5, "{record}");
    assert_eq!(record["chosen"]["patches_in_memory"], 5 * 16);
    let records = last_record(
        &bench.ok(&eval("segment-knn", &[&classes, ["--c", "0.1,10"].as_slice()].concat())),
    );
    let protocols: Vec<&str> =
        records.as_array().unwrap().iter().map(|r| r["protocol"].as_str().unwrap()).collect();
    assert_eq!(protocols, ["segment-knn", "segment-logistic"]);
    assert_eq!(records[0]["mask_size"], 32);
    let results = fs::read_to_string(bench.path("runs/tiny/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["evaluations"].as_array().unwrap().len(), 4, "{results}");
}

/// Returns the files in a folder and its subfolders, with the times of their last change.
fn changes(folder: &Path) -> Vec<(PathBuf, SystemTime)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .flat_map(|path| match path.is_dir() {
            true => changes(&path),
            false => vec![(path.clone(), fs::metadata(&path).unwrap().modified().unwrap())],
        })
        .collect();
    files.sort();
    files
}

#[test]
fn patch_features_are_kept_and_shared() {
    let bench = bench();
    let args = |protocol: &'static str, folder: &'static str| -> Vec<&'static str> {
        let common = ["eval", protocol, "--weights", "runs/tiny", "--crop", "32", "--json"];
        [&common[..], &SEGMENTED, &["--classes", "2", "--features", folder]].concat()
    };
    let run = |protocol, folder| last_record(&bench.ok(&args(protocol, folder)));
    let without = last_record(&bench.ok(&eval("in-context", &["--classes", "2"])));
    let with = run("in-context", "kept");
    assert_eq!(with["metrics"], without["metrics"]);
    let kept = changes(&bench.path("kept"));
    assert_eq!(kept.len(), 2, "of the network and of the same network untrained");
    // Another protocol sees the same squares, so all features are known.
    run("segment-knn", "kept");
    assert_eq!(run("in-context", "kept")["baselines"], without["baselines"]);
    assert_eq!(changes(&bench.path("kept")), kept);

    // Two processes compute them together, and the first evaluates.
    let [first, second] = bench.two_processes(&args("in-context", "shared"));
    assert!(first.status.success() && second.status.success(), "{}", stderr(&first));
    assert!(second.stdout.is_empty());
    let record = last_record(&String::from_utf8(first.stdout).unwrap());
    assert_eq!(record["metrics"], without["metrics"]);
    // A process that comes late finds what the other has written.
    let files = changes(&bench.path("shared")).len();
    assert!((2..=4).contains(&files), "{files} files of two processes and two networks");
    let [first, _] = bench.two_processes(&eval("in-context", &["--classes", "2"]));
    assert!(first.status.code() == Some(2) && stderr(&first).contains("--features FOLDER"));
}

#[test]
fn what_cannot_be_measured_is_said() {
    let bench = bench();
    let fails = |code, args: &[&str], word: &str| {
        let message = bench.fails(code, args);
        assert!(message.contains(word), "'{word}' is missing in: {message}");
    };
    let usage = bench.run(&eval("segment", &[]));
    assert_eq!(usage.status.code(), Some(2));
    assert!(stderr(&usage).contains("--preset"), "{}", stderr(&usage));
    // Protocols do not accept the options of others.
    bench.lacks(&eval("in-context", &["--classes", "2"]), "--resize");
    bench.lacks(&eval("segment-knn", &["--classes", "2"]), "--batch");
    fails(2, &eval("in-context", &["--classes", "2", "--memory", "3"]), "--memory: must fit");
    for (protocol, option, value) in [
        ("in-context", "--k", "0"),
        ("segment", "--lr", "0"),
        ("in-context", "--temperature", "-1"),
    ] {
        let option_and_value = format!("{option}={value}");
        fails(2, &eval(protocol, &["--classes", "2", &option_and_value]), option);
    }
    let picture = ["--classes", "2", "--picture", "/proc/nowhere/a.png"];
    fails(2, &eval("in-context", &picture), "--picture /proc/nowhere/a.png");
    let usage = bench.run(&eval("in-context", &["--preset", "camvid", "--ignore", "3"]));
    assert!(usage.status.code() == Some(2) && stderr(&usage).contains("--ignore"));
    fs::write(bench.path("none.txt"), "\n").unwrap();
    fails(1, &eval("in-context", &["--classes", "2", "--list", "none.txt"]), "contains no names");
    fails(1, &eval("in-context", &["--classes", "300"]), "255");
    fails(2, &eval("segment", &["--classes", "2", "--stride", "99"]), "--stride: must be");
    // It is an error if every label image has an invalid value, but a single bad image is left out.
    fails(1, &eval("in-context", &["--classes", "1"]), "labels/0.png");
    fs::write(bench.path("train/images/1.png"), "no image").unwrap();
    let output = bench.run(&eval("in-context", &["--classes", "2", "--skip-untrained"]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("skipped 1.png"), "{}", stderr(&output));
    let record = last_record(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(record["data"][0]["images"], 4);
    assert!(record["notes"][0].as_str().unwrap().contains("1 of the training images"), "{record}");
}

#[test]
fn images_of_one_place_are_ranked() {
    let bench = bench();
    let folder = draw_places(&bench);
    let truth = r#"{"imlist": ["0", "1", "2", "3"], "qimlist": ["4", "5"],
        "gnd": [{"easy": [1], "hard": [2], "junk": [0]}, {"easy": [2], "hard": [], "junk": []}]}"#;
    fs::write(bench.path("gnd.json"), truth).unwrap();
    let common = ["--weights", "runs/tiny", "--json"];
    let args: &[&str] = &["--images", "places", "--ground-truth", "gnd.json", "--max-side", "40"];
    let record =
        last_record(&bench.ok(&[["eval", "retrieval"].as_slice(), &common, args].concat()));
    assert_eq!(record["main"], "map medium");
    assert!(record["baselines"]["pixels"]["map hard"].is_number(), "{record}");
    assert!(
        record["metrics"]["mp@5 hard"].is_number() && record["baselines"]["untrained"].is_object()
    );
    fs::write(bench.path("gnd.json"), truth.replace("\"3\"", "\"missing\"")).unwrap();
    let message = bench.fails(1, &[["eval", "retrieval"].as_slice(), &common, args].concat());
    assert!(message.contains("missing") && message.contains("gnd.json"), "{message}");
    let small = [&["eval", "retrieval"], &common[..], &args[..4], &["--max-side", "4"]].concat();
    fs::write(bench.path("gnd.json"), truth).unwrap();
    let message = bench.fails(2, &small);
    assert!(message.contains("--max-side: must be at least 8 pixels"), "{message}");
    fs::write(bench.path("gnd.json"), truth).unwrap();
    fs::copy(folder.join("1.png"), folder.join("1.jpg")).unwrap();
    let message = bench.fails(1, &[["eval", "retrieval"].as_slice(), &common, args].concat());
    assert!(message.contains("1.jpg and ") && message.contains("1.png: both"), "{message}");
}

#[test]
fn copies_are_ranked() {
    let bench = bench();
    let folder = draw_places(&bench);
    let common = ["--weights", "runs/tiny", "--json"];
    draw_copies(&bench);
    let args: &[&str] = &[
        "--copydays",
        "copydays",
        "--side",
        "32",
        "--whiten",
        "places",
        "--distractors",
        "places",
    ];
    let record = last_record(&bench.ok(&[["eval", "copy"].as_slice(), &common, args].concat()));
    assert_eq!(
        (record["main"].as_str(), record["metrics"]["map strong"].as_f64()),
        (Some("map strong"), Some(1.0))
    );
    assert_eq!(record["baselines"]["pixels"]["map strong"], 1.0, "equal images");
    // Broken images neither count nor are they ranked.
    fs::write(bench.path("copydays/original/200200.png"), "no image").unwrap();
    fs::write(folder.join("broken.png"), "no image").unwrap();
    let with_broken =
        last_record(&bench.ok(&[["eval", "copy"].as_slice(), &common, args].concat()));
    assert_eq!(with_broken["metrics"], record["metrics"]);
    assert!(!with_broken["notes"].as_array().unwrap().is_empty(), "{with_broken}");
}

/// Arguments that all calls share.
const MASKCUT: [&str; 9] =
    ["eval", "maskcut", "--weights", "runs/tiny", "--json", "--images", "objects", "--side", "96"];

#[test]
fn objects_are_found_and_scored() {
    let bench = bench();
    let truth = draw_objects(&bench);
    let run = |more: &[&str]| last_record(&bench.ok(&[MASKCUT.as_slice(), more].concat()));

    let record = run(&[
        "--ground-truth",
        "truth.json",
        "--detections",
        "found.json",
        "--annotations",
        "labels.json",
        "--picture",
        "found.png",
    ]);
    assert_eq!(record["main"], "mask ap");
    assert!(record["baselines"]["untrained"]["images with a mask"].is_number(), "{record}");
    let read = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(bench.path(name)).unwrap()).unwrap()
    };
    let (found, labels) = (read("found.json"), read("labels.json"));
    assert_eq!(found.as_array().unwrap().len(), labels["annotations"].as_array().unwrap().len());
    assert_eq!(labels["images"].as_array().unwrap().len(), 3);
    assert!(found.as_array().unwrap().iter().all(|one| one["segmentation"]["counts"].is_string()));
    // Images of 60 x 40 are drawn as 360 x 240, above the rows of the truth, the network, and the
    // same network untrained.
    let sheet = image::open(bench.path("found.png")).unwrap();
    assert_eq!((sheet.width(), sheet.height()), (3 * 364 + 4, 244 + 3 * (22 + 244) + 4));

    // A ground truth without masks is compared by boxes only.
    let boxes = truth.replace("\"segmentation\"", "\"polygons\"");
    fs::write(bench.path("boxes.json"), boxes).unwrap();
    let record = run(&["--ground-truth", "boxes.json", "--skip-crf", "--skip-untrained"]);
    assert_eq!((&record["main"], &record["data"][1]["role"]), (&"box ap".into(), &"truth".into()));

    // Without a ground truth and without refinement, the result is repeatable.
    let short: &[&str] = &["--skip-crf", "--skip-untrained", "--limit", "2", "--feature", "value"];
    let record = run(short);
    assert_eq!(
        (record["main"].as_str(), record["data"][0]["images"].as_u64()),
        (Some("images with a mask"), Some(2))
    );
    assert_eq!(run(short)["metrics"], record["metrics"]);
    // Several networks share a picture, but not a file of detections.
    run(&[short, &["--weights", "runs/tiny", "--picture", "two.png"]].concat());
    assert_eq!(image::open(bench.path("two.png")).unwrap().height(), 244 + 2 * (22 + 244) + 4);
    let several = ["--weights", "runs/tiny", "--detections", "two.json"];
    let said = bench.fails(2, &[MASKCUT.as_slice(), &several].concat());
    assert!(said.contains("need a single network"), "{said}");
    fs::write(bench.path("objects/1.png"), "no image").unwrap();
    let record = run(short);
    assert!(
        record["notes"][0].as_str().unwrap().contains("1 of the images could not be read"),
        "{record}"
    );
}

#[test]
fn objects_of_unreadable_images_do_not_count_as_missed() {
    let bench = bench();
    let truth = draw_objects(&bench);
    fs::write(bench.path("objects/1.png"), "no image").unwrap();
    let mut readable: Value = serde_json::from_str(&truth).unwrap();
    for (list, key) in [("images", "id"), ("annotations", "image_id")] {
        readable[list].as_array_mut().unwrap().retain(|entry| entry[key] != 6);
    }
    fs::write(bench.path("readable.json"), readable.to_string()).unwrap();
    let of = |truth| {
        let more = ["--ground-truth", truth, "--skip-untrained"];
        last_record(&bench.ok(&[MASKCUT.as_slice(), &more].concat()))["metrics"].clone()
    };
    assert_eq!(of("truth.json"), of("readable.json"));
}

#[test]
fn wrong_options_of_maskcut_are_named() {
    let bench = bench();
    let truth = draw_objects(&bench);
    let fails = |code, more: &[&str], word: &str| {
        let message = bench.fails(code, &[MASKCUT.as_slice(), more].concat());
        assert!(message.contains(word), "'{word}' is missing in: {message}");
    };
    fails(1, &["--tau", "1.5"], "tau");
    bench.lacks(&MASKCUT, "--crop");
    fails(1, &["--limit", "1", "--ground-truth", "missing.json"], "missing.json");
    let output = bench.run(&[MASKCUT.as_slice(), &["--limit", "0"]].concat());
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    // Mistakes in the ground truth are reported before the network runs, which would reject --tau.
    fs::write(bench.path("truth.json"), truth.replace("\"width\":60", "\"width\":61")).unwrap();
    fails(1, &["--ground-truth", "truth.json", "--tau", "1.5"], "is 60 x 40 pixels");
    fs::write(bench.path("truth.json"), truth.replace("\"bbox\"", "\"box\"")).unwrap();
    fails(1, &["--ground-truth", "truth.json", "--tau", "1.5"], "bbox");
    fs::write(bench.path("truth.json"), truth.replace("2.png", "9.png")).unwrap();
    fails(1, &["--ground-truth", "truth.json"], "9.png");
    let none = r#"{"images": [], "annotations": [], "categories": []}"#;
    fs::write(bench.path("truth.json"), none).unwrap();
    fails(1, &["--ground-truth", "truth.json"], "lists no images");
}

#[test]
fn images_of_two_sets_with_one_name_are_both_named_and_once() {
    let bench = bench();
    for set in ["train", "test"] {
        fs::write(bench.path(&format!("{set}/images/1.png")), b"no picture").unwrap();
    }
    let output = bench.run(&eval("in-context", &["--classes", "2"]));
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    // They are not named again for the untrained network.
    assert_eq!(said.matches("warning: skipped 1.png: ").count(), 2, "{said}");
}
