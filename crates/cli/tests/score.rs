//! Tests of `simdino score` on small files with known scores.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::Bench;
use serde_json::Value;

const TRUTH: &str = r#"{"images": [{"id": 1, "height": 4, "width": 4}, {"id": 2, "height": 4, "width": 4}],
"categories": [{"id": 5, "name": "a, b"}],
"annotations": [{"id": 7, "image_id": 1, "category_id": 5, "area": 8, "iscrowd": 0,
  "bbox": [0, 0, 2, 4], "segmentation": {"size": [4, 4], "counts": [0, 8, 8]}}]}"#;
/// A detection with the right box and half of the mask.
const RESULTS: &str = r#"[{"image_id": 1, "category_id": 5, "score": 0.5,
"bbox": [0, 0, 2, 4], "segmentation": {"size": [4, 4], "counts": [0, 4, 12]}}]"#;

fn files() -> Bench {
    let bench = Bench::without_images();
    fs::write(bench.path("truth.json"), TRUTH).unwrap();
    fs::write(bench.path("results.json"), RESULTS).unwrap();
    bench
}

#[test]
fn coco() {
    let bench = files();
    let args = ["score", "coco", "--truth", "truth.json", "--results", "results.json"];
    let table = bench.ok(&args);
    let first = "2 images with 1 instance of 1 class; 1 detection, none in 1 image\n";
    assert!(table.starts_with(first), "{table}");
    let row = |name: &str| -> Vec<String> {
        let row = table.lines().find(|line| line.starts_with(name)).unwrap();
        row[10..].split("%").map(|cell| cell.trim().to_owned()).collect()
    };
    assert_eq!(row("AP  "), ["100.0", "10.0", ""]);
    assert_eq!(row("AP large"), ["-        -"]);
    let json =
        bench.ok(&[&args[..], &["--json", "--class-agnostic", "--csv", "classes.csv"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!((json["mask"]["ap"].as_f64().unwrap() - 0.1).abs() < 1e-9, "{json}");
    assert_eq!((&json["protocol"], &json["class_agnostic"]), (&"coco".into(), &true.into()));
    assert_eq!(json["box"]["ap_large"], Value::Null);
    let csv = fs::read_to_string(bench.path("classes.csv")).unwrap();
    assert!(csv.lines().nth(2).unwrap().starts_with("mask,object,1,0.09999"), "{csv}");
    // Only boxes are scored.
    let boxes = bench.ok(&[&args[..], &["--kind", "box"]].concat());
    assert!(!boxes.contains("mask"), "{boxes}");
    assert_eq!(bench.ok(&[&args[..], &["--kind", "box,mask,box"]].concat()), table);
    bench.ok(&[&args[..], &["--csv", "classes.csv"]].concat());
    let csv = fs::read_to_string(bench.path("classes.csv")).unwrap();
    assert!(csv.contains("box,\"a, b\",1,"), "{csv}");
}

#[test]
fn corloc() {
    let bench = files();
    let args = ["score", "corloc", "--truth", "truth.json", "--results", "results.json"];
    assert!(bench.ok(&args).starts_with("CorLoc 100.0%: 1 of 1 image; images without a box: 0, "));
    let json: Value = serde_json::from_str(&bench.ok(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["scores"]["corloc"], 1.0);
}

/// Creates a sequence of four frames with two objects. The second one is lost in one of the two
/// frames that are scored.
fn tracks(bench: &Bench) {
    for side in ["truth", "results"] {
        fs::create_dir_all(bench.path(side).join("cat")).unwrap();
        for frame in 0..4 {
            let lost = side == "results" && frame == 2;
            let value = |x: u32, _| image::Luma([if x == 2 && lost { 0 } else { x as u8 }]);
            let path = bench.path(side).join("cat").join(format!("{frame:05}.png"));
            image::GrayImage::from_fn(3, 4, value).save(path).unwrap();
        }
    }
}

#[test]
fn davis() {
    let bench = Bench::without_images();
    tracks(&bench);
    let args = ["score", "davis", "--truth", "truth", "--results", "results"];
    let table = bench.ok(&[&args[..], &["--csv", "objects.csv"]].concat());
    assert!(table.starts_with("1 sequence, 2 objects\n"), "{table}");
    let second = table.lines().find(|line| line.starts_with("cat 2")).unwrap();
    assert!(second.contains("50.0%") && second.ends_with("not found in 1 frame"), "{table}");
    let csv = fs::read_to_string(bench.path("objects.csv")).unwrap();
    assert!(csv.contains("\ncat,1,2,0,1,1,1,0,1,1,0\n"), "{csv}");
    let json: Value = serde_json::from_str(&bench.ok(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(json["scores"]["j"]["mean"], 0.75);
    assert_eq!(json["scores"]["objects"][1]["missed"], 1);
    let single = bench.ok(&[&args[..], &["--single-object"]].concat());
    assert!(single.starts_with("1 sequence, 1 object\n"), "{single}");

    fs::write(bench.path("some.txt"), "cat\n\ncat\n").unwrap();
    assert_eq!(table, bench.ok(&[&args[..], &["--sequences", "some.txt"]].concat()));
    fs::write(bench.path("some.txt"), "cat\n\ndog\n").unwrap();
    let said = bench.fails(1, &[&args[..], &["--sequences", "some.txt"]].concat());
    assert_eq!(said.lines().count(), 1);
    assert!(said.contains("dog"), "{said}");
    fs::write(bench.path("some.txt"), "\n").unwrap();
    let said = bench.fails(1, &[&args[..], &["--sequences", "some.txt"]].concat());
    assert!(said.contains("some.txt: no sequences listed"), "{said}");
}

#[test]
fn faults_are_one_sentence() {
    let bench = files();
    let args = ["score", "coco", "--truth", "truth.json", "--results", "results.json"];
    fs::write(bench.path("results.json"), RESULTS.replace("0.5", "NaN")).unwrap();
    let said = bench.fails(1, &args);
    let expected = "simdino: results.json contains NaN in line 1, column";
    assert!(said.starts_with(expected) && said.lines().count() == 1, "{said}");
    fs::write(bench.path("results.json"), RESULTS.replace("[4, 4]", "[2, 8]")).unwrap();
    let said = bench.fails(1, &args);
    assert!(
        said.starts_with("simdino: results.json: detection [0] (image 1) has a mask"),
        "{said}"
    );
    assert!(said.contains("the mask has 2 x 8 pixels, but the image has 4 x 4"), "{said}");
    let said = bench.fails(1, &["score", "corloc", "--truth", "gone", "--results", "results.json"]);
    assert!(said.starts_with("simdino: cannot read gone"), "{said}");
}
