//! Compares the backbone and the head in fp32 with a float64 reference of timm and torch
//! (tools/parity/vit.py).
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;

use common::{assert_close, fill, fixture, tensor};
use model::weights::named_variables;
use model::{
    Arch, Ffn, HeadConfig, ModelConfig, PosInterpolation, ProjectionHead, VisionTransformer,
};
use model::{Mode, Tokens};
use tch::{Device, Kind, Tensor, nn};

const TOLERANCE: f64 = 1e-5;
const SAMPLES: i64 = 16;

fn backbone() -> (nn::VarStore, VisionTransformer) {
    let vs = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        drop_path_rate: 0.3, // must not act in Mode::Eval
        ..Default::default()
    };
    let vit = VisionTransformer::new(&vs.root(), &config).unwrap();
    fill(&named_variables(&vs));
    (vs, vit)
}

fn loss(tokens: &Tokens) -> Tensor {
    let weighted = |t: &Tensor, stream| (t * tensor(&t.size(), stream, 1.0, 0.0)).sum(Kind::Float);
    weighted(&tokens.cls, 1001) + weighted(&tokens.patches, 1002) / tokens.patches.size()[1]
}

fn check(height: i64, width: i64) {
    let expected = fixture("vit.safetensors").tensors;
    let key = format!("{height}x{width}");
    let get = |name: &str| &expected[&format!("{key}.{name}")];
    let (vs, vit) = backbone();
    let images = tensor(&[2, 3, height, width], 1000, 2.0, 0.0);
    let tokens = vit.forward(&images, Mode::Eval).unwrap();
    assert_eq!(tokens.grid, (height / 8, width / 8));
    assert_close("cls", &tokens.cls, get("cls"), TOLERANCE);
    assert_close("patches", &tokens.patches, get("patches"), TOLERANCE);
    let attention = vit.last_self_attention(&images).unwrap();
    assert_close("attention", &attention, get("attention"), TOLERANCE);
    let loss = loss(&tokens);
    assert_close("loss", &loss, get("loss"), TOLERANCE);
    loss.backward();
    check_gradients(&vs, &key, &expected);
}

fn check_gradients(vs: &nn::VarStore, key: &str, expected: &BTreeMap<String, Tensor>) {
    let get = |name: &str| &expected[&format!("{key}.{name}")];
    for (name, variable) in named_variables(vs) {
        let gradient = variable.grad().flatten(0, -1);
        let stride = (gradient.numel() as i64 / SAMPLES).max(1);
        let samples = gradient.slice(0, None, None, stride);
        let samples = samples.narrow(0, 0, SAMPLES.min(samples.numel() as i64));
        let norm = get(&format!("grad_norm.{name}"));
        assert_close(&format!("norm of the gradient of {name}"), &gradient.norm(), norm, TOLERANCE);
        // Samples relative to the gradient's rms: single elements may be close to 0.
        let rms = norm.double_value(&[]) / (gradient.numel() as f64).sqrt();
        let error = (samples - get(&format!("grad.{name}"))).abs().max().double_value(&[]) / rms;
        assert!(error < 10.0 * TOLERANCE, "gradient of {name}: {error:.2e} of its rms");
    }
}

#[test]
fn backbone_at_its_own_size() {
    check(32, 32);
}

#[test]
fn backbone_on_a_taller_image() {
    check(48, 32);
}

#[test]
fn backbone_on_a_smaller_image() {
    check(16, 16);
}

/// Checks the additions of DINOv2 on images with masked patches.
fn check_dinov2(key: &str, (height, width): (i64, i64), config: ModelConfig) {
    let expected = fixture("vit.safetensors").tensors;
    let get = |name: &str| &expected[&format!("{key}.{name}")];
    let vs = nn::VarStore::new(Device::Cpu);
    let config = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        drop_path_rate: 0.3, // must not act in Mode::Eval
        mask_token: true,
        layer_scale: Some(1.0),
        ..config
    };
    let vit = VisionTransformer::new(&vs.root(), &config).unwrap();
    let count: i64 = vs.trainable_variables().iter().map(|v| v.numel() as i64).sum();
    assert_eq!(config.num_parameters(), count);
    fill(&named_variables(&vs));
    let images = tensor(&[2, 3, height, width], 1000, 2.0, 0.0);
    let masks = get("masks").to_kind(Kind::Bool);
    let tokens = vit.forward_masked(&images, Some(&masks), Mode::Eval).unwrap();
    assert_close("cls", &tokens.cls, get("cls"), TOLERANCE);
    assert_close("patches", &tokens.patches, get("patches"), TOLERANCE);
    if config.num_register_tokens > 0 {
        assert_close("registers", &tokens.registers, get("registers"), TOLERANCE);
    }
    let loss = loss(&tokens);
    assert_close("loss", &loss, get("loss"), TOLERANCE);
    loss.backward();
    check_gradients(&vs, key, &expected);
}

#[test]
fn registers_masks_and_layer_scale() {
    let config = ModelConfig {
        num_register_tokens: 3,
        pos_interpolation: PosInterpolation::Antialias,
        ..Default::default()
    };
    check_dinov2("registers", (48, 32), config);
}

#[test]
fn positions_are_antialiased_where_the_grid_shrinks() {
    let config = ModelConfig {
        num_register_tokens: 1,
        pos_interpolation: PosInterpolation::Antialias,
        ..Default::default()
    };
    check_dinov2("shrunk", (16, 24), config);
}

#[test]
fn swiglu_and_positions_resized_to_the_grid() {
    let config = ModelConfig {
        ffn: Ffn::Swiglu,
        pos_interpolation: PosInterpolation::Size,
        ..Default::default()
    };
    check_dinov2("swiglu", (48, 32), config);
}

#[test]
fn prototypes() {
    let expected = fixture("vit.safetensors").tensors;
    let get = |name: &str| &expected[&format!("prototypes.{name}")];
    let vs = nn::VarStore::new(Device::Cpu);
    let config = HeadConfig {
        hidden_dim: 40,
        out_dim: 16,
        prototypes: 30,
        norm_last_layer: false,
        ..HeadConfig::default()
    };
    let head = ProjectionHead::new(&vs.root(), 24, &config).unwrap();
    let variables = named_variables(&vs);
    fill(&variables);
    let features = tensor(&[10, 24], 1010, 2.0, 0.0).set_requires_grad(true);
    let scores = head.forward(&features).unwrap();
    assert_close("scores", &scores, get("scores"), TOLERANCE);
    (scores * tensor(&[10, 30], 1011, 1.0, 0.0)).sum(Kind::Float).backward();
    assert_close("gradient", &features.grad(), get("grad"), TOLERANCE);
    for part in ["g", "v"] {
        let name = format!("last_layer.weight_{part}");
        let variable = &variables.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_close(&name, &variable.grad(), get(&format!("grad_{part}")), TOLERANCE);
    }
    // Frozen lengths are 1 and get no gradient.
    let vs = nn::VarStore::new(Device::Cpu);
    let config = HeadConfig { norm_last_layer: true, ..config };
    ProjectionHead::new(&vs.root(), 24, &config).unwrap();
    let variables = vs.variables();
    let lengths = &variables["last_layer.weight_g"];
    assert!(!lengths.requires_grad() && *lengths == lengths.ones_like());
    assert_eq!(vs.trainable_variables().len(), variables.len() - 1);
}

fn check_head(use_bn: bool, key: &str) {
    let expected = fixture("vit.safetensors").tensors;
    let vs = nn::VarStore::new(Device::Cpu);
    let config = HeadConfig { hidden_dim: 40, out_dim: 16, use_bn, ..HeadConfig::default() };
    let head = ProjectionHead::new(&vs.root(), 24, &config).unwrap();
    fill(&named_variables(&vs));
    let features = tensor(&[10, 24], 1010, 2.0, 0.0).set_requires_grad(true);
    let rows = head.forward(&features).unwrap();
    assert_close("rows", &rows, &expected[&format!("{key}.rows")], TOLERANCE);
    (rows * tensor(&[10, 16], 1011, 1.0, 0.0)).sum(Kind::Float).backward();
    assert_close("gradient", &features.grad(), &expected[&format!("{key}.grad")], TOLERANCE);
}

#[test]
fn head() {
    check_head(false, "head");
}

#[test]
fn head_with_batch_norm() {
    check_head(true, "head_bn");
}
