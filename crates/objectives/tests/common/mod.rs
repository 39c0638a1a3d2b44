//! Helpers of the tests: fixtures, comparisons, and short calls.

#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::collections::HashMap;
use std::path::PathBuf;

use objectives::coding_rate::{CodingRate, RateOptions};
use objectives::simdino::{SimDinoLoss, SimDinoOutput};
use objectives::{Inputs, Outputs, RatePrecision, Result, SimDinoConfig, StepContext};
use safetensors::SafeTensors;
use serde_json::Value;
use tch::{Kind, Tensor};
use torch_ext::SingleProcess;

/// Allowed error relative to the largest number, in double and in single precision.
pub const DOUBLE: f64 = 1e-10;
pub const SINGLE: f64 = 1e-5;

pub struct Fixture {
    pub tensors: HashMap<String, Tensor>,
    pub cases: Value,
}

pub fn fixture(name: &str) -> Fixture {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let bytes = std::fs::read(&path).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    let tensors = Tensor::read_safetensors(&path).unwrap().into_iter().collect();
    Fixture { tensors, cases: serde_json::from_str(cases).unwrap() }
}

pub fn number(tensor: &Tensor) -> f64 {
    f64::try_from(tensor).unwrap()
}

/// Returns the largest difference relative to the largest expected number.
pub fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    if want.numel() == 0 {
        return 0.0;
    }
    let want = want.to_kind(Kind::Double);
    let worst = number(&(got.to_kind(Kind::Double) - &want).abs().max());
    worst / number(&want.abs().max()).max(f64::MIN_POSITIVE)
}

pub fn assert_close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    let error = relative(got, want);
    assert!(error <= tolerance, "{name}: off by {error:e}, allowed {tolerance:e}");
}

/// Computes the coding rate of whole, uncentered groups.
pub fn coding_rate(z: &Tensor, alpha: f64, precision: RatePrecision) -> Result<CodingRate> {
    objectives::coding_rate::coding_rate(z, &RateOptions { precision, ..RateOptions::new(alpha) })
}

/// Computes the SimDINO loss in one process.
pub fn simdino(
    config: &SimDinoConfig,
    student: &Tensor,
    teacher: &Tensor,
    context: StepContext,
) -> Result<SimDinoOutput> {
    let student = Outputs::of_cls(student.shallow_clone());
    let teacher = Outputs::of_cls(teacher.shallow_clone());
    SimDinoLoss::new(config)?.forward(&Inputs {
        student: &student,
        teacher: &teacher,
        masked: None,
        context,
        collective: &SingleProcess,
        deferred: None,
    })
}
