//! Compares values and gradients of the coding rate and of the SimDINO loss with plain formulas in
//! PyTorch in double precision: to 1e-10 if we compute in double precision, and to 1e-5 in single.
//!
//! The fixture comes from `tools/parity/objectives.py`; its metadata states the seed and the
//! versions.

#![allow(clippy::unwrap_used)]

mod common;

use common::{DOUBLE, Fixture, SINGLE, assert_close, coding_rate, fixture, simdino};
use objectives::{RatePrecision, SimDinoConfig, StepContext};
use tch::{Kind, Tensor};

#[test]
fn coding_rate_and_its_gradient() {
    let Fixture { tensors, cases } = fixture("objectives.safetensors");
    let cases = cases["rates"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let tensor = |field: &str| &tensors[&format!("rate/{name}/{field}")];
        let alpha = case["alpha"].as_f64().unwrap();

        let rate = coding_rate(tensor("z"), alpha, RatePrecision::Fp64).unwrap();
        assert_close(name, &rate.value, tensor("value"), DOUBLE);
        assert_close(name, &rate.gradient, tensor("gradient"), DOUBLE);

        let single = tensor("z").to_kind(Kind::Float);
        let rate = coding_rate(&single, alpha, RatePrecision::Fp32).unwrap();
        assert_eq!((rate.value.kind(), rate.gradient.kind()), (Kind::Float, Kind::Float));
        assert_close(name, &rate.value, tensor("value"), SINGLE);
        assert_close(name, &rate.gradient, tensor("gradient"), SINGLE);
        assert!(rate.events.is_clean());
    }
}

/// Returns loss, compression, and expansion, `[3]`, and the gradient of the student's features.
fn loss_of(
    config: &SimDinoConfig,
    student: &Tensor,
    teacher: &Tensor,
    ctx: StepContext,
) -> (Tensor, Tensor) {
    let student = student.copy().set_requires_grad(true);
    let out = simdino(config, &student, teacher, ctx).unwrap();
    out.loss.backward();
    let terms = [out.loss.detach(), out.compression, out.expansion];
    (Tensor::stack(&terms, 0), student.grad())
}

#[test]
fn simdino_loss_and_its_gradient() {
    let Fixture { tensors, cases } = fixture("objectives.safetensors");
    let cases = cases["losses"].as_array().unwrap();
    assert_eq!(cases.len(), 13);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let tensor = |field: &str| &tensors[&format!("loss/{name}/{field}")];
        let config: SimDinoConfig = serde_json::from_value(case["config"].clone()).unwrap();
        let ctx = StepContext {
            progress: case["progress"].as_f64().unwrap(),
            ..StepContext::first(case["global_batch"].as_u64().unwrap() as usize)
        };

        let double = SimDinoConfig { precision: RatePrecision::Fp64, ..config.clone() };
        let (terms, gradient) = loss_of(&double, tensor("student"), tensor("teacher"), ctx);
        assert_close(name, &terms, tensor("terms"), DOUBLE);
        assert_close(name, &gradient, tensor("gradient"), DOUBLE);

        let student = tensor("student").to_kind(Kind::Float);
        let teacher = tensor("teacher").to_kind(Kind::Float);
        let (terms, gradient) = loss_of(&config, &student, &teacher, ctx);
        assert_eq!((terms.kind(), gradient.kind()), (Kind::Float, Kind::Float));
        assert_close(name, &terms, tensor("terms"), SINGLE);
        assert_close(name, &gradient, tensor("gradient"), SINGLE);
    }
}
