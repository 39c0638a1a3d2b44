//! Backbones imported from files of timm and Hugging Face give the outputs of those libraries
//! (tools/parity/families.py), relative to the largest value: to 1e-10 in fp64, to 1e-6 where the
//! library rounded positions to fp32, and to 1e-5 in fp32.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;

use common::{fixture, tensor};
use model::weights::{
    ImportPolicy, KeyStyle, Role, Target, TensorFile, WeightsFile, choose, import, infer,
    write_safetensors,
};
use model::{ModelConfig, PosInterpolation, Tokens, VisionTransformer};
use serde::Deserialize;
use tch::{Device, Kind, Tensor, nn};

const SAMPLES: i64 = 48;
const LAYERS: i64 = 2;

#[derive(Deserialize)]
struct Case {
    name: String,
    tensors: Vec<(String, Vec<i64>)>,
    pos_interpolation: PosInterpolation,
    /// `config.json` beside the tensors.
    config: Option<serde_json::Value>,
}

impl Case {
    fn patch(&self) -> i64 {
        self.name.rsplit_once("_p").unwrap().1.parse().unwrap()
    }

    /// Writes a file as the library would save it, with the values of `values` in families.py.
    fn write(&self, path: &std::path::Path) {
        let tensors: Vec<_> = (0..)
            .zip(&self.tensors)
            .map(|(stream, (name, shape))| {
                let value = match shape.as_slice() {
                    [_] => {
                        let one = ["weight", "gamma", "lambda1"].iter().any(|e| name.ends_with(e));
                        tensor(shape, stream, 0.1, f64::from(u8::from(one)))
                    }
                    [1, ..] => tensor(shape, stream, 0.5, 0.0),
                    [_, rest @ ..] => {
                        let fan_in = rest.iter().product::<i64>() as f64;
                        tensor(shape, stream, 1.0 / fan_in.sqrt(), 0.0)
                    }
                    [] => unreachable!(),
                };
                (name.clone(), value)
            })
            .collect();
        write_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
        let config = path.with_file_name("config.json");
        let _ = std::fs::remove_file(&config); // of another case
        if let Some(text) = &self.config {
            std::fs::write(config, text.to_string()).unwrap();
        }
    }
}

/// Returns samples of one output, at the same places as the script.
fn sample(x: &Tensor) -> Tensor {
    let flat = x.detach().reshape([-1]);
    let stride = (flat.numel() as i64 / SAMPLES).max(1);
    let flat = flat.slice(0, None, None, stride);
    flat.narrow(0, 0, SAMPLES.min(flat.numel() as i64))
}

fn sequence(tokens: &Tokens) -> Tensor {
    Tensor::cat(&[tokens.cls.unsqueeze(1), tokens.patches.shallow_clone()], 1)
}

/// Returns all outputs that the fixture contains for one resolution.
fn outputs(vit: &VisionTransformer, images: &Tensor) -> Vec<(String, Tensor)> {
    let tokens = vit.forward(images, model::Mode::Eval).unwrap();
    let mut out = vec![("cls".to_owned(), tokens.cls), ("patches".to_owned(), tokens.patches)];
    if tokens.registers.numel() > 0 {
        out.push(("registers".to_owned(), tokens.registers));
    }
    for (i, layer) in vit.intermediate_layers(images, LAYERS).unwrap().iter().enumerate() {
        out.push((format!("layer{i}"), sequence(layer)));
    }
    out.push(("attention".to_owned(), vit.last_self_attention(images).unwrap()));
    for (name, part) in ["q", "k", "v"].into_iter().zip(vit.last_qkv(images).unwrap()) {
        out.push((name.to_owned(), part));
    }
    out
}

fn check(case: &Case, expected: &WeightsFile, path: &std::path::Path, kind: Kind, tolerance: f64) {
    let file = TensorFile::open(path).unwrap();
    let network = choose(&file, Role::Teacher).unwrap();
    let inferred = infer(&file, &network).unwrap();
    if !case.name.starts_with("timm") || inferred.model.num_register_tokens > 0 {
        assert_eq!(inferred.model.pos_interpolation, case.pos_interpolation, "{}", case.name);
    }
    let config = ModelConfig { pos_interpolation: case.pos_interpolation, ..inferred.model };
    let mut vars = nn::VarStore::new(Device::Cpu);
    let vit = VisionTransformer::new(&vars.root(), &config).unwrap();
    if kind == Kind::Double {
        vars.double();
    }
    let target = Target { vars: &vars, model: &config, backbone: "", head: None, patch_head: None };
    let report = import(&file, &target, &ImportPolicy::default()).unwrap();
    assert_eq!(report.backbone, (vars.len(), vars.len()), "{report}");
    assert!(report.missing.is_empty() && report.unexpected.is_empty(), "{report}");
    for (rows, cols) in [(4, 4), (6, 3)] {
        let size = [2, 3, rows * case.patch(), cols * case.patch()];
        let images = tensor(&size, 1000, 2.0, 0.0).to_kind(kind);
        // Only `ViTModel` resizes the positions of an fp64 network in fp64, as we do; the others
        // resize in fp32.
        let rounded = !case.name.starts_with("hf_vit") && (rows, cols) != (4, 4);
        let tolerance = if rounded { tolerance.max(1e-6) } else { tolerance };
        for (name, got) in tch::no_grad(|| outputs(&vit, &images)) {
            let key = format!("{}.{rows}x{cols}.{name}", case.name);
            common::assert_close(&key, &sample(&got), &expected.tensors[&key], tolerance);
        }
    }
}

/// Checks all cases whose name begins with `family`, each in both precisions.
fn check_family(family: &str) {
    let expected = fixture("families.safetensors");
    let cases: Vec<Case> = serde_json::from_str(&expected.metadata["cases"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("library.safetensors");
    let mut seen = 0;
    for case in cases.iter().filter(|case| case.name.starts_with(family)) {
        seen += 1;
        case.write(&path);
        check(case, &expected, &path, Kind::Double, 1e-10);
        check(case, &expected, &path, Kind::Float, 1e-5);
    }
    assert!(seen > 0);
}

#[test]
fn transformers_of_timm() {
    check_family("timm");
}

#[test]
fn dinov2_of_hugging_face() {
    check_family("hf_dinov2");
}

#[test]
fn registers_of_hugging_face() {
    check_family("hf_registers");
}

#[test]
fn vit_of_hugging_face() {
    check_family("hf_vit");
}

#[test]
fn styles_are_told_apart() {
    let expected = fixture("families.safetensors");
    let cases: Vec<Case> = serde_json::from_str(&expected.metadata["cases"]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("library.safetensors");
    for (name, style) in [
        ("timm_nano_p8", KeyStyle::Dino), // the same names
        ("timm_nano_swiglu_p14", KeyStyle::Timm),
        ("timm_tiny_reg4_p14", KeyStyle::Timm),
        ("hf_dinov2_nano_p14", KeyStyle::HfDinov2),
        ("hf_vit_tiny_p16", KeyStyle::HfVit),
    ] {
        cases.iter().find(|case| case.name == name).unwrap().write(&path);
        let file = TensorFile::open(&path).unwrap();
        assert_eq!(choose(&file, Role::Teacher).unwrap().style, style, "{name}");
    }
}
