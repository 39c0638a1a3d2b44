//! The hash that `tools/parity/vit.py` fills weights and images with, and comparisons.
#![allow(dead_code)] // each test binary uses its own part
#![allow(clippy::unwrap_used)] // helpers of tests

use std::path::PathBuf;

use model::weights::{WeightsFile, read_safetensors};
use tch::{Kind, Tensor};

/// Returns `count` values in [-1, 1), bit for bit those of `hashed` in vit.py.
pub fn hashed(count: usize, stream: u64) -> Vec<f64> {
    (0..count as u64)
        .map(|i| {
            let mut z = i.wrapping_add(stream << 32).wrapping_add(1);
            z = z.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            (z >> 40) as f64 / f64::from(1 << 23) - 1.0
        })
        .collect()
}

pub fn tensor(shape: &[i64], stream: u64, scale: f64, offset: f64) -> Tensor {
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f32> =
        hashed(count, stream).iter().map(|v| (v * scale + offset) as f32).collect();
    Tensor::from_slice(&values).view(shape)
}

/// Overwrites the trainable variables with one stream each, in the order of their names.
pub fn fill(variables: &[(String, Tensor)]) {
    let trainable = variables.iter().filter(|(_, v)| v.requires_grad());
    for (stream, (name, variable)) in (0..).zip(trainable) {
        let size = variable.size();
        let is_norm = name.ends_with("weight") && size.len() == 1;
        let values = tensor(&size, stream, 0.15, if is_norm { 1.0 } else { 0.0 });
        tch::no_grad(|| variable.shallow_clone().copy_(&values));
    }
}

pub fn fixture(name: &str) -> WeightsFile {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    read_safetensors(&path).unwrap()
}

/// Returns the largest absolute difference, relative to the largest absolute value expected.
pub fn relative_error(got: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(got.size(), expected.size());
    let expected = expected.to_kind(Kind::Double);
    let difference = (got.to_kind(Kind::Double) - &expected).abs().max();
    difference.double_value(&[]) / expected.abs().max().double_value(&[])
}

pub fn assert_close(what: &str, got: &Tensor, expected: &Tensor, tolerance: f64) {
    let error = relative_error(got, expected);
    assert!(error <= tolerance, "{what}: relative error {error:.2e} above {tolerance:.0e}");
}
