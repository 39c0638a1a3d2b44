//! Compares block-wise masks with a Python restatement that uses the same random draws
//! (tools/parity/masks.py).

use data::batch::BatchGeometry;
use data::masking::{MaskConfig, MaskGenerator, MaskKey};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// Decodes a mask. Each row of the grid is a hexadecimal number whose lowest bit is the first
/// patch.
fn unpacked(mask: &str, width: usize) -> Vec<bool> {
    let rows = mask.split(' ').map(|row| u64::from_str_radix(row, 16).unwrap());
    rows.flat_map(|row| (0..width).map(move |x| row >> x & 1 == 1)).collect()
}

#[test]
fn masks_are_those_of_the_published_sampler() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("../fixtures/masks.json")).unwrap();
    assert_eq!(cases.len(), 5);
    for case in &cases {
        let config: MaskConfig = serde_json::from_value(case["settings"].clone()).unwrap();
        let grid = numbers(&case["grid"]);
        let (height, width) = (grid[0] as usize, grid[1] as usize);
        let [seed, epoch, step] = numbers(&case["key"]).try_into().unwrap();
        let key = MaskKey { seed, epoch, step };
        let generator = MaskGenerator::new(&config, (height, width)).unwrap();
        let batch = case["batch"].as_u64().unwrap() as usize;
        let masks = generator.batch(key, BatchGeometry::new(batch).unwrap(), 0);
        let expected = case["masks"].as_array().unwrap();
        assert_eq!(masks.masks.nrows(), expected.len());
        let mut hidden = 0;
        for (crop, (got, expected)) in masks.masks.rows().into_iter().zip(expected).enumerate() {
            let expected = unpacked(expected.as_str().unwrap(), width);
            hidden += expected.iter().filter(|&&hidden| hidden).count();
            assert_eq!(got.to_vec(), expected, "crop {crop} of {height}x{width}, seed {seed}");
        }
        assert_eq!(masks.indices.len(), hidden);
        assert!(hidden > 0);
    }
}
