//! Weights whose values or positions differ from what their shapes suggest are refused by name.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use model::normalize::Normalize;
use model::weights::{
    Backbone, ImportPolicy, Layout, Target, TensorFile, export, import, infer, named_variables,
    verify, write_safetensors,
};
use model::{Arch, ModelConfig, VisionTransformer};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};

type Tensors = BTreeMap<String, Tensor>;

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..ModelConfig::default() }
}

fn network(model: &ModelConfig) -> Tensors {
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), model).unwrap();
    named_variables(&vars).into_iter().map(|(name, tensor)| (name, tensor.detach())).collect()
}

/// Returns what the import of these tensors assumes, or why it is refused.
fn read(dir: &Path, tensors: &Tensors) -> model::Result<Vec<String>> {
    let path = dir.join("model.safetensors");
    let tensors: Vec<_> = tensors.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
    write_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
    let policy = ImportPolicy::default();
    let file = TensorFile::open(&path)?;
    let inferred = infer(&file, &policy.choose(&file)?)?;
    let model = &inferred.model;
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), model)?;
    let target = Target { vars: &vars, model, backbone: "", head: None, patch_head: None };
    import(&file, &target, &policy)?;
    Ok(inferred.assumed)
}

#[test]
fn a_value_that_is_not_finite_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for key in ["norm.weight", "blocks.2.attn.qkv.weight", "cls_token", "pos_embed"] {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let tensors = network(&nano());
            let _ = tensors[key].view([-1]).get(5).fill_(value);
            let sentence = read(dir.path(), &tensors).unwrap_err().to_string();
            assert!(sentence.contains(key) && sentence.contains("not finite"), "{sentence}");
            assert!(sentence.contains("model.safetensors"), "{sentence}");
        }
    }
    // Finite in double precision, but beyond the range of single precision.
    let mut tensors = network(&nano());
    let wide = tensors["norm.bias"].to_kind(Kind::Double) + 1e300;
    tensors.insert("norm.bias".to_owned(), wide);
    let sentence = read(dir.path(), &tensors).unwrap_err().to_string();
    assert!(sentence.contains("norm.bias") && sentence.contains("not finite"), "{sentence}");
}

#[test]
fn a_network_that_is_not_finite_is_not_exported() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: Vec<_> = network(&nano()).into_iter().collect();
    let model = nano();
    let _ = tensors[3].1.view([-1]).get(0).fill_(f64::NAN);
    let name = tensors[3].0.clone();
    for layout in [Layout::Dinov2, Layout::Timm, Layout::HuggingFace] {
        let normalize = model::normalize::Normalize { mean: vec![0.5; 3], std: vec![0.5; 3] };
        let backbone = Backbone { tensors: &tensors, model: &model, normalize };
        let sentence = export(dir.path(), &backbone, layout).unwrap_err().to_string();
        assert!(sentence.contains(&name) && sentence.contains("not finite"), "{sentence}");
    }
}

#[test]
fn whole_numbers_are_no_weights() {
    let dir = tempfile::tempdir().unwrap();
    for kind in [Kind::Int64, Kind::Uint8] {
        let mut tensors = network(&nano());
        let key = "blocks.1.mlp.fc1.weight";
        tensors.insert(key.to_owned(), tensors[key].to_kind(kind));
        let sentence = read(dir.path(), &tensors).unwrap_err().to_string();
        assert!(sentence.contains(key) && sentence.contains(&format!("{kind:?}")), "{sentence}");
    }
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        let mut tensors = network(&nano());
        tensors.insert("head.weight".to_owned(), Tensor::ones([4], (Kind::Int64, Device::Cpu)));
        tensors.insert("norm.weight".to_owned(), tensors["norm.weight"].to_kind(kind));
        read(dir.path(), &tensors).unwrap(); // what no feature depends on may be of any type
    }
}

/// Returns the plain network with `count` positions, and with registers under a library's key.
fn with_positions(count: i64, registers: Option<(&str, i64)>) -> Tensors {
    let mut tensors = network(&nano());
    let random = |n| Tensor::randn([1, n, 128], (Kind::Float, Device::Cpu));
    tensors.insert("pos_embed".to_owned(), random(count));
    if let Some((key, count)) = registers {
        tensors.insert(key.to_owned(), random(count));
    }
    tensors
}

fn timm(arguments: &Value) -> Value {
    json!({"architecture": "vit_tiny_patch16_224", "model_args": arguments})
}

#[test]
fn positions_are_those_of_the_grid_in_the_config_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let registers = |count| Some(("reg_token", count));
    for (count, registers, arguments, words) in [
        // 4 x 6 patches and the class token, which look like 5 x 5
        (25, None, json!({"img_size": [32, 48]}), "4 x 6 patches"),
        (25, None, json!({"img_size": 40}), ""),
        (25, None, json!({"img_size": 40, "no_embed_class": false}), "no_embed_class is false"),
        // 4 x 4 patches, the class token and 8 registers
        (25, registers(8), json!({"img_size": 32, "reg_tokens": 8}), "positions of registers"),
        (25, registers(8), json!({"img_size": 40, "no_embed_class": true}), ""),
        // 4 x 9 patches, which look like 6 x 6
        (37, None, json!({"img_size": [32, 72]}), "4 x 9 patches"),
        (37, None, json!({"img_size": 48}), ""),
        (37, None, json!({"img_size": 48, "no_embed_class": true}), "no_embed_class is true"),
    ] {
        fs::write(dir.path().join("config.json"), timm(&arguments).to_string()).unwrap();
        match read(dir.path(), &with_positions(count, registers)) {
            Ok(_) => assert!(words.is_empty(), "{arguments}: read"),
            Err(error) => {
                let sentence = error.to_string();
                assert!(!words.is_empty() && sentence.contains(words), "{arguments}: {sentence}");
                assert!(sentence.contains("config.json"), "{sentence}");
            }
        }
    }
}

#[test]
fn positions_that_may_be_of_two_grids_are_refused_or_assumed_aloud() {
    let dir = tempfile::tempdir().unwrap();
    for (count, registers, words) in [
        (25, Some(("reg_token", 8)), "8 registers"), // 5 x 5, or 4 x 4 with all tokens
        (17, Some(("reg_token", 7)), "7 registers"), // 4 x 4, or 3 x 3 with all tokens
        (25, Some(("register_tokens", 4)), "24 patches"), // DINOv2's class token has a position
        (25, Some(("mask_token", 1)), "24 patches"),
    ] {
        let error = read(dir.path(), &with_positions(count, registers)).unwrap_err();
        let sentence = error.to_string();
        assert!(sentence.contains(words), "{registers:?}: {sentence}");
    }
    for (count, registers, aloud) in [
        (25, Some(("reg_token", 4)), false),
        (17, Some(("register_tokens", 4)), false),
        (17, None, false),
        (25, None, true), // DeiT III, or a grid that is not square
    ] {
        let assumed = read(dir.path(), &with_positions(count, registers)).unwrap();
        let said = assumed.iter().any(|line| line.contains("25 positions"));
        assert_eq!(said, aloud, "{count} {registers:?}: {assumed:?}");
    }
}

/// The initial LayerScale affects only the same network without training.
#[test]
fn the_layer_scale_before_training_is_that_of_the_config() {
    let dir = tempfile::tempdir().unwrap();
    let scaled = network(&ModelConfig { layer_scale: Some(0.7), ..nano() });
    for (config, expected) in [
        (json!({"model_type": "dinov2", "num_attention_heads": 4, "layerscale_value": 1.0}), 1.0),
        (json!({"architecture": "vit_x", "model_args": {"init_values": 0.1}}), 0.1),
        (json!({"embed_dim": 128, "init_values": 0.01}), 0.01),
        (json!({"model_type": "dinov2", "num_attention_heads": 4}), 1e-5),
        (json!({"embed_dim": 128, "init_values": 0}), 1e-5),
    ] {
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        for (tensors, expected) in [(&scaled, Some(expected)), (&network(&nano()), None)] {
            let assumed = read(dir.path(), tensors).unwrap();
            let file = TensorFile::open(&dir.path().join("model.safetensors")).unwrap();
            let chosen = ImportPolicy::default().choose(&file).unwrap();
            assert_eq!(infer(&file, &chosen).unwrap().model.layer_scale, expected, "{config}");
            let aloud = assumed.iter().any(|line| line.starts_with("model.layer_scale: 1e-5"));
            assert_eq!(aloud, expected == Some(1e-5), "{config}: {assumed:?}");
        }
    }
}

fn backbone<'a>(tensors: &'a [(String, Tensor)], model: &'a ModelConfig) -> Backbone<'a> {
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.5; 3] };
    Backbone { tensors, model, normalize }
}

#[test]
fn reading_back_compares_every_value() {
    let model = ModelConfig { num_register_tokens: 2, ..nano() };
    let tensors: Vec<(String, Tensor)> = network(&model).into_iter().collect();
    let dir = tempfile::tempdir().unwrap();
    let difference = |tensors: &[(String, Tensor)]| {
        verify(dir.path(), &backbone(tensors, &model)).unwrap().difference
    };
    for layout in [Layout::Timm, Layout::Dinov2] {
        export(dir.path(), &backbone(&tensors, &model), layout).unwrap();
        assert_eq!(difference(&tensors), 0.0);
        // The first position is that of the class token, and the last one that of a patch.
        for (name, at) in [("cls_token", 5), ("pos_embed", 5), ("pos_embed", -1), ("norm.bias", 5)]
        {
            for value in [2.0, f64::NAN] {
                let copies = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.copy()));
                let changed: Vec<(String, Tensor)> = copies.collect();
                let (_, tensor) = changed.iter().find(|(other, _)| other == name).unwrap();
                let _ = tensor.view([-1]).get(at).fill_(value);
                let found = difference(&changed);
                let expected = if value.is_nan() { found == f64::INFINITY } else { found > 0.1 };
                assert!(expected, "{layout:?}, {name}[{at}] = {value}: {found}");
            }
        }
    }
}
