//! Helpers that several tests share.

use std::collections::BTreeMap;

use score::coco::{Kind, Options, Summary};

/// The numbers of pycocotools, by evaluation and metric.
pub type Expected = BTreeMap<String, BTreeMap<String, Option<f64>>>;

/// Returns the evaluations of tools/parity/coco_eval.py and their options.
pub fn evaluations() -> Vec<(&'static str, Options)> {
    let options = |kind, class_agnostic, box_areas| {
        let mut options = Options::default();
        options.kind = kind;
        options.class_agnostic = class_agnostic;
        options.box_areas = box_areas;
        options
    };
    vec![
        ("box", options(Kind::Box, false, false)),
        ("mask", options(Kind::Mask, false, false)),
        ("mask_box_areas", options(Kind::Mask, false, true)),
        ("box_class_agnostic", options(Kind::Box, true, false)),
        ("mask_class_agnostic", options(Kind::Mask, true, false)),
    ]
}

/// Compares all twelve numbers.
pub fn assert_close(name: &str, found: &Summary, expected: &BTreeMap<String, Option<f64>>) {
    let found = serde_json::to_value(found).unwrap();
    assert_eq!(expected.len(), 12);
    for (key, expected) in expected {
        let value = found.get(key).unwrap().as_f64();
        let close = match (value, expected) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-9,
            (a, b) => a.is_none() && b.is_none(),
        };
        assert!(close, "{name} {key}: {value:?}, but pycocotools has {expected:?}");
    }
}
