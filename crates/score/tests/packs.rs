//! Tests with real images, which run only if `SIMDINO_TEST_DATA` names the folder of data packs.
//! The masks and numbers of COCO must equal those of pycocotools, and the scores of a published
//! DAVIS result those of davis2017-evaluation.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::{Expected, assert_close, evaluations};
use score::coco::{Detection, Detections, GroundTruth, Image, evaluate};
use score::davis::{Options, Statistics, score};
use score::{IndexImage, Rle};
use serde::Deserialize;

/// Extracts a data pack, or prints why the test is skipped and returns `None`.
fn pack(name: &str) -> Option<(tempfile::TempDir, PathBuf)> {
    let Some(packs) = std::env::var_os("SIMDINO_TEST_DATA") else {
        println!("skipped: SIMDINO_TEST_DATA does not name the folder of data packs");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::open(Path::new(&packs).join(format!("{name}.tar"))).unwrap();
    tar::Archive::new(std::io::BufReader::new(file)).unpack(folder.path()).unwrap();
    let path = folder.path().join(name);
    Some((folder, path))
}

#[test]
fn coco() {
    let Some((_folder, pack)) = pack("coco_mini") else { return };
    let truth = GroundTruth::read(&pack.join("annotations/instances.json")).unwrap();
    let images: BTreeMap<_, &Image> =
        truth.images().iter().map(|image| (&image.id, image)).collect();
    let masks: Vec<Rle> = truth
        .annotations()
        .iter()
        .map(|annotation| {
            let image = images[&annotation.image_id];
            annotation.segmentation.as_ref().unwrap().to_rle(image.height, image.width).unwrap()
        })
        .collect();
    same_pixels(&pack, &truth, &masks);
    let list = perturbed(&truth, &masks);
    let detections = Detections::new("perturbed".to_owned(), list).unwrap();
    let expected: Expected = serde_json::from_str(include_str!("fixtures/mini.json")).unwrap();
    for (name, options) in evaluations() {
        let found = evaluate(&truth, &detections, &options).unwrap();
        assert_close(name, &found, &expected[name]);
    }
}

/// Asserts that every mask has as many pixels as pycocotools counts.
fn same_pixels(pack: &Path, truth: &GroundTruth, masks: &[Rle]) {
    #[derive(Deserialize)]
    struct Pixels {
        id: i64,
        mask_pixels: u64,
    }
    let text = std::fs::read(pack.join("annotations/mask_pixels.json")).unwrap();
    let pixels: Vec<Pixels> = serde_json::from_slice(&text).unwrap();
    let pixels: BTreeMap<i64, u64> = pixels.iter().map(|p| (p.id, p.mask_pixels)).collect();
    assert_eq!(pixels.len(), masks.len());
    for (annotation, mask) in truth.annotations().iter().zip(masks) {
        assert_eq!(mask.area(), pixels[&annotation.id], "annotation {}", annotation.id);
    }
}

/// Derives detections from the ground truth, exactly as `perturbed` in tools/parity/coco_eval.py.
fn perturbed(truth: &GroundTruth, masks: &[Rle]) -> Vec<Detection> {
    let mut categories: Vec<i64> = truth.categories().iter().map(|category| category.id).collect();
    categories.sort_unstable();
    let mut list = Vec::new();
    for (index, (annotation, mask)) in truth.annotations().iter().zip(masks).enumerate() {
        if index % 9 == 4 {
            continue;
        }
        for repeat in 0..(if index % 11 == 5 { 2 } else { 1 }) {
            let number = index * 37 + repeat * 53;
            let shift = (number as i64 % 13 - 6, number as i64 % 17 - 8);
            let found = if index % 50 == 7 { empty(mask) } else { shifted(mask, shift) };
            let other = index % 13 == 6;
            let category = annotation.category_id;
            let category = if other { categories[number % categories.len()] } else { category };
            let score = (number % 101) as f64 / 101.0;
            list.push(Detection::from_mask(annotation.image_id.clone(), category, score, &found));
        }
    }
    list
}

fn empty(mask: &Rle) -> Rle {
    Rle::new(mask.height(), mask.width(), vec![mask.height() * mask.width()]).unwrap()
}

fn shifted(mask: &Rle, (dy, dx): (i64, i64)) -> Rle {
    let (height, width) = (i64::from(mask.height()), i64::from(mask.width()));
    let pixels = mask.to_mask();
    let at = |row: i64, column: i64| {
        (0..height).contains(&row)
            && (0..width).contains(&column)
            && pixels[(row * width + column) as usize]
    };
    let cells = (0..height).flat_map(|row| (0..width).map(move |column| (row, column)));
    let pixels: Vec<bool> = cells.map(|(row, column)| at(row - dy, column - dx)).collect();
    Rle::from_mask(mask.height(), mask.width(), &pixels).unwrap()
}

#[derive(Deserialize)]
#[allow(non_snake_case)] // the keys of the file
struct Osvos {
    frames: usize,
    J_mean: f64,
    J_recall: f64,
    J_decay: f64,
    F_mean: f64,
    F_recall: f64,
    F_decay: f64,
    JF_mean: f64,
}

#[test]
fn davis() {
    let Some((_folder, pack)) = pack("davis") else { return };
    let mut options = Options::default();
    options.single_object = true;
    let report = score(&pack.join("Annotations/480p"), &pack.join("osvos_pred"), &options).unwrap();
    let text = std::fs::read(pack.join("osvos_reference_jf.json")).unwrap();
    let mut expected: BTreeMap<String, serde_json::Value> = serde_json::from_slice(&text).unwrap();
    expected.remove("_note");
    assert_eq!((report.objects.len(), expected.len()), (4, 4));
    let close = |found: Statistics, mean: f64, recall: f64, decay: f64| {
        let pairs = [(found.mean, mean), (found.recall, recall), (found.decay, decay)];
        assert!(pairs.iter().all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
    };
    for found in &report.objects {
        let expected = expected.remove(&found.sequence).unwrap();
        let expected: Osvos = serde_json::from_value(expected).unwrap();
        assert_eq!(found.frames, expected.frames - 2);
        close(found.j, expected.J_mean, expected.J_recall, expected.J_decay);
        close(found.f, expected.F_mean, expected.F_recall, expected.F_decay);
        assert!((found.j_and_f - expected.JF_mean).abs() < 1e-6);
    }
}

#[test]
fn palettes_are_numbers_of_objects() {
    let Some((_folder, pack)) = pack("davis") else { return };
    let folder = pack.join("multi_object_demo/Annotations/judo");
    let sizes = [("00000", 854, 1, 53811), ("00005", 853, 2, 6034), ("00008", 854, 3, 7986)];
    for (frame, width, object, count) in sizes {
        let image = IndexImage::read(&folder.join(format!("{frame}.png"))).unwrap();
        assert_eq!((image.width, image.height), (width, 480));
        let of = |number: u8| image.pixels.iter().filter(|value| **value == number).count();
        assert_eq!((of(object), of(0)), (count, width as usize * 480 - count));
    }
}
