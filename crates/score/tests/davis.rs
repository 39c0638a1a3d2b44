//! Tests that J and F of several objects equal those of tools/parity/davis.py.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use base::error_chain;
use score::IndexImage;
use score::davis::{Options, Statistics, score};
use serde::Deserialize;

/// Returns the path of a fixture.
fn fixture(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures")).join(name)
}

#[derive(Deserialize)]
struct Object {
    j: Statistics,
    f: Statistics,
}

fn assert_close(found: Statistics, expected: Statistics) {
    let pairs = [
        (found.mean, expected.mean),
        (found.recall, expected.recall),
        (found.decay, expected.decay),
    ];
    assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}, not {expected:?}");
}

#[test]
fn each_object_of_each_sequence() {
    let report =
        score(&fixture("davis/truth"), &fixture("davis/results"), &Options::default()).unwrap();
    let expected: BTreeMap<String, Vec<Object>> =
        serde_json::from_str(include_str!("fixtures/davis/expected.json")).unwrap();
    let mut found = report.objects.iter();
    for (sequence, objects) in &expected {
        for (index, object) in objects.iter().enumerate() {
            let found = found.next().unwrap();
            assert_eq!((&found.sequence, usize::from(found.object)), (sequence, index + 1));
            assert_close(found.j, object.j);
            assert_close(found.f, object.f);
            assert_eq!(found.j_and_f, (found.j.mean + found.f.mean) / 2.0);
        }
    }
    assert!(found.next().is_none());
    let all: Vec<&Object> = expected.values().flatten().collect();
    assert_eq!(all.len(), 6);
    let mean =
        |value: fn(&Object) -> f64| all.iter().map(|object| value(object)).sum::<f64>() / 6.0;
    assert!((report.j.mean - mean(|object| object.j.mean)).abs() < 1e-12);
    assert!((report.f.decay - mean(|object| object.f.decay)).abs() < 1e-12);
    assert!((report.j_and_f - (report.j.mean + report.f.mean) / 2.0).abs() < 1e-12);
}

#[test]
fn some_sequences_alone() {
    let mut options = Options::default();
    options.sequences = vec!["two".to_owned(); 2];
    let report = score(&fixture("davis/truth"), &fixture("davis/results"), &options).unwrap();
    assert_eq!(report.objects.len(), 3);
    assert!(report.objects.iter().all(|object| object.sequence == "two" && object.frames == 3));
    assert_eq!(report.objects[2].j.mean, 0.0, "the object that the results lack");
    assert_eq!(report.objects.iter().map(|object| object.missed).collect::<Vec<_>>(), [0, 0, 3]);
}

#[test]
fn a_row_per_object() {
    let report =
        score(&fixture("davis/truth"), &fixture("davis/results"), &Options::default()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("objects.csv");
    report.write_csv(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 7);
    assert_eq!(rows[0][..5], ["sequence", "object", "frames", "missed", "j_and_f"]);
    assert_eq!(rows[6][..4], ["two", "3", "3", "3"]);
    assert_eq!(rows[1][5].parse::<f64>().unwrap(), report.objects[0].j.mean);
    let error = report.write_csv(&folder.path().join("gone/objects.csv")).unwrap_err();
    assert!(error_chain(&error).starts_with("cannot write"), "{error}");
}

fn write(path: &Path, values: [u8; 4]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    IndexImage { width: 2, height: 2, pixels: values.to_vec() }.write(path).unwrap();
}

/// Writes a sequence of three frames with one object each, and results equal to the annotations.
fn tiny(folder: &Path, value: u8) {
    for side in ["truth", "results"] {
        for frame in 0..3 {
            let path = folder.join(side).join("cat").join(format!("{frame:05}.png"));
            write(&path, [0, value, 0, value]);
        }
    }
}

fn complaint(folder: &Path, options: &Options) -> Option<String> {
    let result = score(&folder.join("truth"), &folder.join("results"), options);
    result.err().map(|error| error_chain(&error))
}

#[test]
fn the_object_of_davis_2016_is_255() {
    let folder = tempfile::tempdir().unwrap();
    tiny(folder.path(), 255);
    let told = complaint(folder.path(), &Options::default()).unwrap();
    assert!(told.contains("00000.png") && told.contains("--single-object"), "{told}");
    let mut options = Options::default();
    options.single_object = true;
    write(&folder.path().join("results/cat/00001.png"), [0, 3, 0, 9]);
    let result = score(&folder.path().join("truth"), &folder.path().join("results"), &options);
    let report = result.unwrap();
    assert_eq!((report.j_and_f, report.objects.len()), (1.0, 1));
    // With several objects, 255 is the background.
    tiny(folder.path(), 1);
    write(&folder.path().join("truth/cat/00001.png"), [255, 1, 255, 1]);
    assert_eq!(complaint(folder.path(), &Options::default()), None);
}

#[test]
fn each_fault_of_a_folder_is_one_sentence_with_its_file() {
    type Change = fn(&Path);
    let faults: [(Change, &str, &str); 9] = [
        (|f| fs::remove_file(f.join("results/cat/00001.png")).unwrap(), "00001.png", "is missing"),
        (|f| fs::remove_dir_all(f.join("results/cat")).unwrap(), "results/cat", "is missing"),
        (|f| fs::remove_file(f.join("truth/cat/00002.png")).unwrap(), "truth/cat", "has 2 frames"),
        (|f| fs::remove_dir_all(f.join("truth/cat")).unwrap(), "truth", "no folder of PNG files"),
        (|f| fs::remove_dir_all(f.join("truth")).unwrap(), "truth", "cannot read"),
        (|f| write(&f.join("truth/cat/00000.png"), [0; 4]), "00000.png", "shows no object"),
        (
            |f| write(&f.join("results/cat/00001.png"), [0, 1, 2, 1]),
            "results/cat/00001.png",
            "contains object 2, but the first annotation has 1",
        ),
        (
            |f| {
                let image = IndexImage { width: 4, height: 1, pixels: vec![0, 1, 0, 1] };
                image.write(&f.join("results/cat/00001.png")).unwrap();
            },
            "results/cat/00001.png",
            "has 4 x 1 pixels, but the annotation has 2 x 2",
        ),
        (
            |f| fs::write(f.join("results/cat/00001.png"), "no image").unwrap(),
            "results/cat/00001.png",
            "not an image",
        ),
    ];
    for (change, file, part) in faults {
        let folder = tempfile::tempdir().unwrap();
        tiny(folder.path(), 1);
        assert_eq!(complaint(folder.path(), &Options::default()), None);
        change(folder.path());
        let told = complaint(folder.path(), &Options::default()).unwrap();
        assert!(told.contains(file) && told.contains(part) && !told.contains('\n'), "{told}");
    }
    let folder = tempfile::tempdir().unwrap();
    tiny(folder.path(), 1);
    let mut options = Options::default();
    options.sequences = vec!["dog".to_owned()];
    let told = complaint(folder.path(), &options).unwrap();
    assert!(told.contains("dog"), "{told}");
}

#[test]
fn the_first_and_the_last_frame_do_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    tiny(folder.path(), 1);
    fs::remove_file(folder.path().join("results/cat/00000.png")).unwrap();
    fs::remove_file(folder.path().join("results/cat/00002.png")).unwrap();
    assert_eq!(complaint(folder.path(), &Options::default()), None);
}
