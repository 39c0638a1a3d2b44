//! Tests that COCO's numbers equal those of pycocotools; see tools/parity/coco_eval.py.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::path::{Path, PathBuf};

use base::error_chain;
use common::{Expected, assert_close, evaluations};
use score::coco::{
    Annotation, Category, Detection, Detections, GroundTruth, Image, Kind, Options, evaluate,
    write_csv,
};
use score::{Rle, corloc};

/// Returns the path of a fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

fn expected() -> Expected {
    serde_json::from_str(include_str!("fixtures/expected.json")).unwrap()
}

fn drawn() -> (GroundTruth, Detections) {
    let truth = GroundTruth::read(&fixture("truth.json")).unwrap();
    (truth, Detections::read(&fixture("results.json")).unwrap())
}

#[test]
fn all_numbers_are_those_of_pycocotools() {
    let (truth, detections) = drawn();
    for (name, options) in evaluations() {
        let found = evaluate(&truth, &detections, &options).unwrap();
        assert_close(name, &found, &expected()[name]);
        assert_eq!(found.images, 14);
        assert_eq!(found.detections, detections.list().len());
    }
}

#[test]
fn boxes_of_masks_are_those_of_pycocotools() {
    let (truth, detections) = drawn();
    let strip = |detection: &Detection| Detection { bbox: None, ..detection.clone() };
    let list = detections.list().iter().map(strip).collect();
    let detections = Detections::new("masks".to_owned(), list).unwrap();
    let found = evaluate(&truth, &detections, &Options::default()).unwrap();
    assert_close("mask_box", &found, &expected()["mask_box"]);
}

#[test]
fn a_row_per_class() {
    let (truth, detections) = drawn();
    let found = evaluate(&truth, &detections, &Options::default()).unwrap();
    let mean = found.categories.iter().map(|category| category.ap).sum::<f64>();
    let count = found.categories.len();
    assert!((mean / count as f64 - found.ap.unwrap()).abs() < 1e-12 && count == 3);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("classes.csv");
    write_csv(&path, &[("box", &found), ("mask", &found)]).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("kind,category,instances,ap,ap50\nbox,a,"), "{text}");
    assert_eq!(text.lines().count(), 7);
}

#[test]
fn files_that_were_written_score_the_same() {
    let (truth, detections) = drawn();
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("truth.json"), folder.path().join("results.json"));
    truth.write(&a).unwrap();
    detections.write(&b).unwrap();
    let (truth, detections) = (GroundTruth::read(&a).unwrap(), Detections::read(&b).unwrap());
    for (name, options) in evaluations() {
        let found = evaluate(&truth, &detections, &options).unwrap();
        assert_close(name, &found, &expected()[name]);
    }
    let missing = folder.path().join("gone/truth.json");
    let error = error_chain(&truth.write(&missing).unwrap_err());
    assert!(error.starts_with("cannot write") && error.contains("gone"), "{error}");
}

/// Returns ground truth with one image of 4 x 4 pixels, whose object is its left half, and the
/// object's mask.
fn half() -> (GroundTruth, Rle) {
    let mask = Rle::new(4, 4, vec![0, 8, 8]).unwrap();
    let image = Image { id: 1.into(), file_name: "a.jpg".to_owned(), height: 4, width: 4 };
    let category = Category { id: 1, name: "object".to_owned() };
    let annotation = Annotation::from_mask(1, 1.into(), 1, &mask);
    let truth = GroundTruth::new("truth".to_owned(), vec![image], vec![category], vec![annotation]);
    (truth.unwrap(), mask)
}

fn masks() -> Options {
    let mut options = Options::default();
    options.kind = Kind::Mask;
    options
}

#[test]
fn nothing_found_is_zero_and_all_found_is_one() {
    let (truth, mask) = half();
    let none = Detections::new("results".to_owned(), vec![]).unwrap();
    let found = evaluate(&truth, &none, &masks()).unwrap();
    assert_eq!((found.ap, found.ar_100, found.ap_large), (Some(0.0), Some(0.0), None));
    assert_eq!((found.images_without_detections, found.instances), (1, 1));
    let all = vec![Detection::from_mask(1.into(), 1, 0.5, &mask)];
    let all = Detections::new("results".to_owned(), all).unwrap();
    let found = evaluate(&truth, &all, &masks()).unwrap();
    assert!((found.ap.unwrap() - 1.0).abs() < 1e-12);
    assert_eq!((found.ar_1, found.images_without_detections), (Some(1.0), 0));
    assert_eq!(found.categories.len(), 1);
    assert_eq!(found.categories[0].name, "object");
}

#[test]
fn the_annotation_with_the_id_zero_counts() {
    let (truth, mask) = half();
    let annotations = vec![Annotation { id: 0, ..truth.annotations()[0].clone() }];
    let (images, categories) = (truth.images().to_vec(), truth.categories().to_vec());
    let truth = GroundTruth::new("truth".to_owned(), images, categories, annotations).unwrap();
    let all = vec![Detection::from_mask(1.into(), 1, 0.5, &mask)];
    let all = Detections::new("results".to_owned(), all).unwrap();
    assert_eq!(evaluate(&truth, &all, &masks()).unwrap().ar_1, Some(1.0));
}

#[test]
fn one_box_per_image() {
    let image = |id: i64| Image { id: id.into(), file_name: String::new(), height: 9, width: 9 };
    let category = Category { id: 1, name: "object".to_owned() };
    let annotation = |id: i64, image: i64, bbox: [f64; 4], iscrowd: bool| Annotation {
        id,
        image_id: image.into(),
        category_id: 1,
        iscrowd,
        area: None,
        bbox: Some(bbox.into()),
        segmentation: None,
    };
    let annotations = vec![
        annotation(1, 1, [0.0, 0.0, 4.0, 4.0], false),
        annotation(2, 1, [4.0, 4.0, 4.0, 4.0], false),
        annotation(3, 2, [0.0, 0.0, 4.0, 4.0], false),
        annotation(4, 3, [0.0, 0.0, 4.0, 4.0], false),
        annotation(5, 4, [0.0, 0.0, 4.0, 4.0], true),
    ];
    let images = (1..=5).map(image).collect();
    let truth = GroundTruth::new("truth".to_owned(), images, vec![category], annotations).unwrap();
    let detection = |image: i64, score: f64, bbox: [f64; 4]| Detection {
        image_id: image.into(),
        category_id: None,
        score,
        bbox: Some(bbox.into()),
        segmentation: None,
    };
    let list = vec![
        // Exactly one half of the second object; the worse box has a lower score.
        detection(1, 0.1, [0.0, 0.0, 1.0, 1.0]),
        detection(1, 0.9, [4.0, 4.0, 4.0, 2.0]),
        // The first of two equal scores wins.
        detection(2, 0.5, [5.0, 5.0, 1.0, 1.0]),
        detection(2, 0.5, [0.0, 0.0, 4.0, 4.0]),
        detection(4, 0.5, [0.0, 0.0, 4.0, 4.0]),
    ];
    let detections = Detections::new("results".to_owned(), list).unwrap();
    let found = corloc(&truth, &detections).unwrap();
    assert_eq!(
        (found.correct, found.images, found.without_box, found.without_object),
        (1, 3, 1, 2)
    );
    assert!((found.corloc.unwrap() - 1.0 / 3.0).abs() < 1e-12);
}

const TRUTH: &str = r#"{"images": [{"id": 1, "height": 2, "width": 3}],
"categories": [{"id": 5, "name": "a"}],
"annotations": [{"id": 7, "image_id": 1, "category_id": 5, "area": 2, "iscrowd": 0,
  "bbox": [0, 0, 1, 2], "segmentation": {"size": [2, 3], "counts": [0, 2, 4]}}]}"#;
const RESULTS: &str = r#"[{"image_id": 1, "category_id": 5, "score": 0.5,
"bbox": [0, 0, 1, 2], "segmentation": {"size": [2, 3], "counts": [0, 2, 4]}}]"#;

/// Returns the error for these files, if any.
fn complaint(folder: &Path, truth: &str, results: &str, options: &Options) -> Option<String> {
    let (a, b) = (folder.join("truth.json"), folder.join("results.json"));
    std::fs::write(&a, truth).unwrap();
    std::fs::write(&b, results).unwrap();
    let score = || evaluate(&GroundTruth::read(&a)?, &Detections::read(&b)?, options);
    score().err().map(|error| error_chain(&error))
}

/// The text to replace, its replacement, and parts of the expected error.
const TRUTH_FAULTS: &[(&str, &str, &[&str])] = &[
    ("\"annotations\"", "\"annotated\"", &["truth.json", "missing field `annotations`"]),
    ("\"id\": 7, ", "", &["truth.json", "missing field `id`", "line"]),
    ("\"area\": 2, ", "", &["annotations[0] (id 7)", "lacks the key \"area\""]),
    ("\"image_id\": 1", "\"image_id\": 2", &["to image 2", "truth.json"]),
    ("\"image_id\": 1", "\"image_id\": \"b\"", &["to image \"b\""]),
    ("\"category_id\": 5", "\"category_id\": 6", &["to category 6", "annotations[0]"]),
    ("\"area\": 2", "\"area\": NaN", &["truth.json contains NaN in line 3", "finite"]),
    ("\"iscrowd\": 0", "\"iscrowd\": \"no\"", &["iscrowd must be 0, 1, true, or false"]),
    ("[0, 2, 4]", "[0, 2, 5]", &["(id 7)", "add up to 7 pixels, but 2 x 3 is 6"]),
    ("[0, 2, 4]", "[0, -2, 8]", &["run lengths"]),
    ("[0, 2, 4]", "\"0\\u007f\"", &["byte 127 at position 1"]),
    ("[2, 3]", "[3, 2]", &["the mask has 3 x 2 pixels, but the image has 2 x 3"]),
    ("{\"size\": [2, 3], \"counts\": [0, 2, 4]}", "[]", &["(id 7)", "no polygon"]),
    ("{\"size\": [2, 3], \"counts\": [0, 2, 4]}", "[[1, 2, 3]]", &["polygon 0 has 3"]),
    (", \"segmentation\": {\"size\": [2, 3], \"counts\": [0, 2, 4]}", "", &["segmentation"]),
    ("{\"id\": 5, \"name\": \"a\"}", "{\"id\": 5}, {\"id\": 5}", &["categories[1]", "same id"]),
    ("[{\"id\": 1, ", "[{\"id\": 1, \"height\": 2, \"width\": 3}, {\"id\": 1, ", &["images[1]"]),
];

/// As above, for the results.
const RESULT_FAULTS: &[(&str, &str, &[&str])] = &[
    ("\"score\": 0.5,", "", &["missing field `score`"]),
    ("0.5", "NaN", &["contains NaN in line 1"]),
    ("0.5", "-Infinity", &["contains Infinity in line 1"]),
    ("0.5", "1e999", &["number out of range"]),
    ("\"image_id\": 1", "\"image_id\": 2", &["detection [0] (image 2)", "truth.json"]),
    ("\"category_id\": 5", "\"category_id\": 6", &["to category 6", "without classes"]),
    ("\"category_id\": 5, ", "", &["lacks the key \"category_id\""]),
    ("[0, 0, 1, 2]", "[0, 0, -1, 2]", &["has the box [0.0, 0.0, -1.0, 2.0]"]),
    ("[0, 0, 1, 2]", "[0, 0, 1]", &["an array of length 4"]),
    ("[0, 2, 4]", "[0, 2]", &["detection [0] (image 1)", "add up to 2 pixels"]),
    ("[2, 3]", "[1, 6]", &["resize the mask"]),
    (", \"segmentation\": {\"size\": [2, 3], \"counts\": [0, 2, 4]}", "", &["segmentation"]),
    ("[{", "{\"results\": [{", &["results.json is not a list of detections", "map"]),
    ("[{", "", &["results.json"]),
];

#[test]
fn each_fault_of_a_file_is_one_sentence_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let masks = masks();
    assert_eq!(complaint(folder.path(), TRUTH, RESULTS, &masks), None);
    assert_eq!(complaint(folder.path(), TRUTH, RESULTS, &Options::default()), None);
    for (old, new, parts) in TRUTH_FAULTS {
        assert!(TRUTH.contains(old), "{old}");
        let told = complaint(folder.path(), &TRUTH.replacen(old, new, 1), RESULTS, &masks);
        let told = told.unwrap_or_else(|| panic!("{old} -> {new} is accepted"));
        assert!(parts.iter().all(|part| told.contains(part)), "{new}: {told}");
        assert!(told.contains("truth.json") && !told.contains('\n'), "{told}");
    }
    let results_text = RESULTS.replace(",\n\"bbox\"", ", \"bbox\"");
    for (old, new, parts) in RESULT_FAULTS {
        assert!(results_text.contains(old), "{old}");
        let told = complaint(folder.path(), TRUTH, &results_text.replacen(old, new, 1), &masks);
        let told = told.unwrap_or_else(|| panic!("{old} -> {new} is accepted"));
        assert!(parts.iter().all(|part| told.contains(part)), "{new}: {told}");
        assert!(told.contains("results.json") && !told.contains('\n'), "{told}");
    }
    let gone = GroundTruth::read(&folder.path().join("gone.json")).unwrap_err();
    assert!(error_chain(&gone).starts_with("cannot read"));
}

#[test]
fn what_another_kind_needs_may_be_missing() {
    let folder = tempfile::tempdir().unwrap();
    let broken = TRUTH.replace("[0, 2, 4]", "[0, 2, 5]");
    assert_eq!(complaint(folder.path(), &broken, RESULTS, &Options::default()), None);
    let boxes = TRUTH.replace("\"bbox\": [0, 0, 1, 2], ", "");
    assert_ne!(boxes, TRUTH);
    assert_eq!(complaint(folder.path(), &boxes, RESULTS, &masks()), None);
    let told = complaint(folder.path(), &boxes, RESULTS, &Options::default());
    assert!(told.unwrap().contains("lacks the key \"bbox\""));
    // A class-agnostic evaluation needs no class.
    let mut agnostic = masks();
    agnostic.class_agnostic = true;
    for results in [RESULTS.replace("\"category_id\": 5, ", ""), RESULTS.replace(": 5,", ": 99,")] {
        assert_ne!(results, RESULTS);
        assert_eq!(complaint(folder.path(), TRUTH, &results, &agnostic), None);
    }
}

#[test]
fn scores_in_memory_are_checked_too() {
    let (_, mask) = half();
    for score in [f64::NAN, f64::INFINITY] {
        let list = vec![Detection::from_mask(1.into(), 1, score, &mask)];
        let error = Detections::new("results".to_owned(), list).unwrap_err();
        assert!(error_chain(&error).contains("not finite"), "{error}");
    }
}
