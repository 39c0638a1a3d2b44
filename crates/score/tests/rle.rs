//! Tests that run lengths equal those of pycocotools; see tools/parity/coco_eval.py.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use score::{BBox, Rle};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    masks: Vec<MaskCase>,
    polygons: Vec<PolygonCase>,
    uncompressed: Vec<CountsCase>,
    unions: Vec<UnionCase>,
    overlaps: Vec<OverlapCase>,
}

#[derive(Deserialize)]
struct Text {
    size: [u32; 2],
    counts: String,
}

impl Text {
    fn rle(&self) -> Rle {
        Rle::from_text(self.size[0], self.size[1], &self.counts).unwrap()
    }
}

#[derive(Deserialize)]
struct MaskCase {
    #[serde(flatten)]
    text: Text,
    rows: String,
    area: u64,
    bbox: BBox,
}

#[derive(Deserialize)]
struct PolygonCase {
    #[serde(flatten)]
    text: Text,
    polygons: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct CountsCase {
    counts: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
struct UnionCase {
    masks: Vec<Text>,
    union: String,
    intersection: String,
}

#[derive(Deserialize)]
struct OverlapCase {
    masks: Vec<Text>,
    plain: Vec<Vec<f64>>,
    crowd: Vec<Vec<f64>>,
}

fn cases() -> Cases {
    serde_json::from_str(include_str!("fixtures/rle.json")).unwrap()
}

#[test]
fn masks() {
    let cases = cases().masks;
    assert_eq!(cases.len(), 24);
    for MaskCase { text, rows, area, bbox } in cases {
        let pixels: Vec<bool> = rows.bytes().map(|byte| byte == b'1').collect();
        let mask = Rle::from_mask(text.size[0], text.size[1], &pixels).unwrap();
        assert_eq!(mask.to_text(), text.counts);
        assert_eq!(text.rle(), mask);
        assert_eq!(mask.to_mask(), pixels);
        assert_eq!((mask.area(), mask.bounding_box()), (area, bbox), "{}", text.counts);
    }
}

#[test]
fn polygons() {
    let cases = cases().polygons;
    assert_eq!(cases.len(), 40);
    for PolygonCase { text, polygons } in cases {
        let mask = Rle::from_polygons(text.size[0], text.size[1], &polygons).unwrap();
        assert_eq!(mask.to_text(), text.counts, "{polygons:?} in {:?}", text.size);
    }
}

#[test]
fn run_lengths() {
    let cases = cases().uncompressed;
    assert_eq!(cases.len(), 6);
    for CountsCase { counts, text } in cases {
        let mask = Rle::new(counts.iter().sum(), 1, counts).unwrap();
        assert_eq!(mask.to_text(), text);
        assert_eq!(Rle::from_text(mask.height(), 1, &text).unwrap(), mask);
    }
}

#[test]
fn unions_and_intersections() {
    let cases = cases().unions;
    assert_eq!(cases.len(), 12);
    for UnionCase { masks, union, intersection } in cases {
        let masks: Vec<Rle> = masks.iter().map(Text::rle).collect();
        assert_eq!(Rle::union(&masks).unwrap().to_text(), union);
        assert_eq!(Rle::intersection(&masks).unwrap().to_text(), intersection);
    }
}

#[test]
fn overlaps() {
    let cases = cases().overlaps;
    assert_eq!(cases.len(), 12);
    for OverlapCase { masks, plain, crowd } in cases {
        for (row, a) in masks.iter().enumerate() {
            for (column, b) in masks.iter().enumerate() {
                let (a, b) = (a.rle(), b.rle());
                for (crowd, expected) in [(false, &plain), (true, &crowd)] {
                    let found = a.iou(&b, crowd).unwrap();
                    // Parsing the fixture may change the last bit.
                    assert!((found - expected[row][column]).abs() < 1e-15, "{found}");
                }
            }
        }
    }
}
