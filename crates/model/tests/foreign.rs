//! Weights of other programs are read completely, or refused with the obstacle.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::weights::{
    ImportPolicy, ImportReport, Role, Target, TensorFile, choose, import, infer, named_variables,
    normalization, write_safetensors,
};
use model::{Arch, Error, ModelConfig, VisionTransformer};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor, nn};

type Tensors = Vec<(String, Tensor)>;

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..ModelConfig::default() }
}

/// Returns the tensors of a network, each filled with a different value.
fn network(model: &ModelConfig) -> Tensors {
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), model).unwrap();
    let named = named_variables(&vars).into_iter().enumerate();
    let value = |i: usize, t: &Tensor| Tensor::full_like(t, i as f64 + 1.0);
    named.map(|(i, (name, tensor))| (name, value(i, &tensor))).collect()
}

fn renamed(tensors: &Tensors, rename: impl Fn(&str) -> String) -> Tensors {
    tensors.iter().map(|(name, tensor)| (rename(name), tensor.shallow_clone())).collect()
}

fn write(folder: &Path, name: &str, tensors: &Tensors) -> PathBuf {
    let path = folder.join(name);
    write_safetensors(&path, tensors, &BTreeMap::new()).unwrap();
    path
}

fn of_ones(shape: &[i64]) -> Tensor {
    Tensor::ones(shape, (Kind::Float, Device::Cpu))
}

/// What reading a file gives: the report, the architecture, and the variables.
struct Read {
    report: ImportReport,
    model: ModelConfig,
    tensors: Tensors,
}

fn read(path: &Path, policy: &ImportPolicy) -> model::Result<Read> {
    let file = TensorFile::open(path)?;
    let model = infer(&file, &policy.choose(&file)?)?.model;
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), &model)?;
    let target = Target { vars: &vars, model: &model, backbone: "", head: None, patch_head: None };
    let report = import(&file, &target, policy)?;
    Ok(Read { report, model, tensors: named_variables(&vars) })
}

fn refusal(path: &Path) -> String {
    let report = read(path, &ImportPolicy::default()).map(|read| read.report.to_string());
    report.unwrap_err().to_string()
}

#[track_caller]
fn assert_same(read: &Read, expected: &Tensors) {
    assert_eq!(read.tensors.len(), expected.len());
    for ((name, got), (wanted, value)) in read.tensors.iter().zip(expected) {
        assert!(name == wanted && *got == *value, "{name}");
    }
}

#[test]
fn a_layer_scale_is_read_under_every_name() {
    let expected = network(&ModelConfig { layer_scale: Some(1.0), ..nano() });
    let dir = tempfile::tempdir().unwrap();
    for form in ["gamma_1", "ls1.weight", "ls1.scale_factor", "lambda_1", "layer_scale_1.scale"] {
        let name = |key: &str| {
            let second = form.replacen("_1", "_2", 1).replace("ls1", "ls2");
            key.replace("ls1.gamma", form).replace("ls2.gamma", &second)
        };
        let path = write(dir.path(), "x.safetensors", &renamed(&expected, name));
        assert_same(&read(&path, &ImportPolicy::default()).unwrap(), &expected);
    }
}

#[test]
fn a_part_that_is_not_computed_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let plain = network(&nano());
    for (key, words) in [
        ("norm_pre.weight", "before the first block"),
        ("blocks.1.attn.q_norm.weight", "norm of queries"),
        ("blocks.3.attn.relative_position_bias_table", "relative positions"),
        ("dist_token", "distillation token"),
        ("blocks.0.adapter.down", "does not use"),
        ("module.norm.weight", "does not use"), // a second one for the same place
    ] {
        let mut tensors = renamed(&plain, str::to_owned);
        tensors.push((key.to_owned(), of_ones(&[128])));
        let path = write(dir.path(), "x.safetensors", &tensors);
        let sentence = refusal(&path);
        assert!(sentence.contains(key) && sentence.contains(words), "{sentence}");
        let policy = ImportPolicy { ignore_unused: true, ..ImportPolicy::default() };
        let read = read(&path, &policy).unwrap();
        assert_eq!(read.report.unexpected, [key]);
    }
}

#[test]
fn what_features_do_not_depend_on_is_left_out_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = network(&nano());
    let expected = renamed(&tensors, str::to_owned);
    let behind = ["decoder_blocks.0.norm1.weight", "fc.weight", "head.weight", "mask_token"];
    tensors.extend(behind.map(|key| (key.to_owned(), of_ones(&[1, 1, 48]))));
    let path = write(dir.path(), "x.safetensors", &tensors);
    let read = read(&path, &ImportPolicy::default()).unwrap();
    assert_same(&read, &expected);
    assert_eq!(read.report.behind, behind);
    assert!(!read.model.mask_token, "that of a decoder is another");
}

#[test]
fn a_tensor_that_is_missing_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    for lost in ["norm.weight", "blocks.2.attn.qkv.bias", "blocks.0.mlp.fc2.bias"] {
        let mut tensors = network(&nano());
        tensors.retain(|(name, _)| name != lost);
        let path = write(dir.path(), "x.safetensors", &tensors);
        let sentence = refusal(&path);
        assert!(sentence.contains(lost) && sentence.contains("53 of the 54"), "{sentence}");
        let policy = ImportPolicy { min_matched: 0.9, ..ImportPolicy::default() };
        assert_eq!(read(&path, &policy).unwrap().report.missing, [lost]);
    }
}

#[test]
fn a_network_without_biases_of_queries_has_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = network(&nano());
    tensors.retain(|(name, _)| !name.ends_with("qkv.bias"));
    let path = write(dir.path(), "x.safetensors", &tensors);
    let read = read(&path, &ImportPolicy::default()).unwrap();
    assert_eq!(read.report.zero.len(), 4);
    for (name, tensor) in &read.tensors {
        assert_eq!(tensor.abs().max().double_value(&[]) == 0.0, name.ends_with("qkv.bias"));
    }
}

#[test]
fn rotary_positions_are_called_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut tensors = network(&nano());
    tensors.retain(|(name, _)| name != "pos_embed");
    let sentence = refusal(&write(dir.path(), "x.safetensors", &tensors));
    assert!(sentence.contains("rotary positions are not supported"), "{sentence}");
    tensors.push(("storage_tokens".to_owned(), of_ones(&[1, 4, 128])));
    let sentence = refusal(&write(dir.path(), "x.safetensors", &tensors));
    assert!(sentence.contains("rotary") && sentence.contains("storage_tokens"), "{sentence}");
}

#[test]
fn the_network_that_is_meant_is_found_or_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let own = network(&nano());
    let other = renamed(&own, str::to_owned);
    let other: Tensors = other.into_iter().map(|(name, tensor)| (name, -tensor)).collect();
    let pair = |first: &str, second: &str| {
        let mut both = renamed(&own, |name| format!("{first}{name}"));
        both.extend(renamed(&other, |name| format!("{second}{name}")));
        write(dir.path(), "x.safetensors", &both)
    };
    let path = pair("state_dict.momentum_backbone.", "state_dict.backbone.");
    assert_same(&read(&path, &ImportPolicy::default()).unwrap(), &own);
    let student = ImportPolicy { role: Role::Student, ..ImportPolicy::default() };
    assert_same(&read(&path, &student).unwrap(), &other);

    let path = pair("left.vit.", "right.vit.");
    let sentence = refusal(&path);
    assert!(sentence.contains("begin with left.vit, right.vit"), "{sentence}");
    for prefix in ["left", "left.vit", "module.left.vit."] {
        let prefix = Some(prefix.to_owned());
        let policy = ImportPolicy { prefix, ..ImportPolicy::default() };
        assert_same(&read(&path, &policy).unwrap(), &own);
    }
    let nothing = ImportPolicy { prefix: Some("up".to_owned()), ..ImportPolicy::default() };
    let sentence = read(&path, &nothing).err().unwrap().to_string();
    assert!(sentence.contains("prefix 'up'") && sentence.contains("right.vit"), "{sentence}");

    // A network whose keys lie inside those of another is not part of it.
    let path = pair("", "ema.");
    assert_same(&read(&path, &ImportPolicy::default()).unwrap(), &other);
    assert_same(&read(&path, &student).unwrap(), &own);
}

/// Writes the weights of a network and a config of this name into a folder.
fn with_config(dir: &Path, name: &str, config: &Value) -> PathBuf {
    fs::write(dir.join(name), config.to_string()).unwrap();
    write(dir, "model.safetensors", &network(&nano()))
}

#[test]
fn what_a_config_says_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    for (config, heads, eps) in [
        (json!({"model_type": "vit", "num_attention_heads": 8}), 8, 1e-12),
        (json!({"model_type": "dinov2", "num_attention_heads": 8, "patch_size": [8, 8]}), 8, 1e-6),
        (json!({"num_attention_heads": 2, "layer_norm_eps": 0.01}), 2, 0.01),
        (json!({"architecture": "vit_x", "model_args": {"num_heads": 8, "depth": 4}}), 8, 1e-6),
        (json!({"architecture": "vit_x", "model_args": {"act_layer": "gelu"}}), 4, 1e-6),
        (json!({"embed_dim": 128, "num_heads": 16}), 16, 1e-6),
        (json!({"name": "something else"}), 4, 1e-6),
    ] {
        let path = with_config(dir.path(), "config.json", &config);
        let model = read(&path, &ImportPolicy::default()).unwrap().model;
        assert_eq!((model.heads(), model.norm_eps), (heads, eps), "{config}");
    }
}

#[test]
fn what_a_config_says_and_is_not_computed_is_refused_by_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let hf = |key: &str, value: Value| json!({"model_type": "dinov2", "num_attention_heads": 4, key: value});
    let timm =
        |key: &str, value: Value| json!({"architecture": "vit_x", "model_args": {key: value}});
    for (key, config) in [
        ("hidden_act", hf("hidden_act", "quick_gelu".into())),
        ("model_type", json!({"model_type": "beit"})),
        ("quantization_config", hf("quantization_config", json!({}))),
        ("auto_map", hf("auto_map", json!({"AutoModel": "code"}))),
        ("hidden_size", hf("hidden_size", 192.into())),
        ("num_hidden_layers", hf("num_hidden_layers", 3.into())),
        ("patch_size", hf("patch_size", json!([8, 4]))),
        ("num_register_tokens", hf("num_register_tokens", 4.into())),
        ("num_heads", hf("num_attention_heads", 3.into())),
        ("num_attention_heads", hf("num_attention_heads", "8".into())),
        ("lacks num_attention_heads", json!({"model_type": "vit"})), // 12 does not fit
        ("image_size", hf("image_size", json!([32, 64]))),
        ("image_size", hf("image_size", 48.into())),
        ("image_size", hf("image_size", "32".into())),
        ("img_size", timm("img_size", json!([32, 64]))),
        ("img_size", timm("img_size", 24.into())),
        ("no_embed_class", timm("no_embed_class", true.into())),
        (
            "input_size",
            json!({"architecture": "vit_tiny_patch16_224", "pretrained_cfg":
                {"fixed_input_size": true, "input_size": [3, 32, 40]}}),
        ),
        ("architecture", json!({"architecture": "beit_base_patch16_224"})),
        ("act_layer", timm("act_layer", "quick_gelu".into())),
        ("norm_layer", timm("norm_layer", "rmsnorm".into())),
        ("qk_norm", timm("qk_norm", true.into())),
        ("rope", timm("rope", true.into())),
        ("embed_dim", timm("embed_dim", 192.into())),
    ] {
        let path = with_config(dir.path(), "config.json", &config);
        let sentence = refusal(&path);
        assert!(sentence.contains("config.json") && sentence.contains(key), "{config}: {sentence}");
    }
    let path = write(dir.path(), "model.safetensors", &network(&nano()));
    fs::write(dir.path().join("config.json"), "{").unwrap();
    assert!(refusal(&path).contains("is not valid JSON"));
}

#[test]
fn pixels_are_prepared_as_the_preprocessor_says() {
    let dir = tempfile::tempdir().unwrap();
    let known = |config: &Value| {
        let path = with_config(dir.path(), "preprocessor_config.json", config);
        normalization(&TensorFile::open(&path).unwrap(), 3)
    };
    let half = json!([0.5, 0.5, 0.5]);
    for (config, mean, std) in [
        (json!({"image_mean": half, "image_std": half}), 0.5, 0.5),
        (
            json!({"image_mean": 0.5, "image_std": 0.25, "rescale_factor": 0.00392156862745098}),
            0.5,
            0.25,
        ),
        (json!({"do_normalize": false, "image_mean": half, "image_std": half}), 0.0, 1.0),
        (json!({"do_normalize": false, "do_rescale": false}), 0.0, 1.0 / 255.0),
        (json!({"do_rescale": false, "image_mean": 127.5, "image_std": 51.0}), 0.5, 0.2),
        (json!({"rescale_factor": 2.0 / 255.0, "image_mean": 1.0, "image_std": 1.0}), 0.5, 0.5),
    ] {
        let found = known(&config).unwrap().unwrap();
        let close = |values: &[f32], wanted: f32| values.iter().all(|v| (v - wanted).abs() < 1e-6);
        assert!(found.mean.len() == 3 && found.std.len() == 3, "{config}");
        assert!(close(&found.mean, mean) && close(&found.std, std), "{config}: {found:?}");
    }
    for (key, config) in [
        ("do_flip_channel_order", json!({"do_flip_channel_order": true, "do_normalize": false})),
        ("do_grayscale", json!({"do_grayscale": true, "do_normalize": false})),
        ("offset", json!({"offset": true, "image_mean": half, "image_std": half})),
        ("image_mean", json!({"do_resize": true})),
        ("image_std", json!({"image_mean": half})),
        ("image_std", json!({"image_mean": half, "image_std": [0.0, 0.5, 0.5]})),
        ("image_mean", json!({"image_mean": "half", "image_std": half})),
        ("2 channels", json!({"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]})),
        ("rescale_factor", json!({"rescale_factor": 0.0, "do_normalize": false})),
    ] {
        let sentence = known(&config).unwrap_err().to_string();
        assert!(sentence.contains(key), "{config}: {sentence}");
    }
}

/// Writes a network in two parts, and returns the path and the map of their index.
fn in_parts(dir: &Path) -> (PathBuf, BTreeMap<String, String>) {
    let tensors = network(&nano());
    let mut map = BTreeMap::new();
    for (i, part) in tensors.chunks(30).enumerate() {
        let name = format!("model-{:05}-of-00002.safetensors", i + 1);
        let part: Tensors = part.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        write(dir, &name, &part);
        map.extend(part.into_iter().map(|(key, _)| (key, name.clone())));
    }
    (index(dir, &map), map)
}

fn index(dir: &Path, map: &BTreeMap<String, String>) -> PathBuf {
    let path = dir.join("model.safetensors.index.json");
    fs::write(&path, json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string())
        .unwrap();
    path
}

#[test]
fn parts_are_read_as_one_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, _) = in_parts(dir.path());
    assert_same(&read(&path, &ImportPolicy::default()).unwrap(), &network(&nano()));
}

#[test]
fn parts_that_are_not_as_their_index_says_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let (path, map) = in_parts(dir.path());
    let second = dir.path().join("model-00002-of-00002.safetensors");
    let mut changed = map.clone();
    changed.insert("norm.weight".into(), "model-00001-of-00002.safetensors".into());
    index(dir.path(), &changed);
    let sentence = refusal(&path);
    assert!(sentence.contains("norm.weight should be in") && sentence.contains("00001"));
    for outside in ["../x.safetensors", "/etc/passwd", "", "a/b"] {
        index(dir.path(), &BTreeMap::from([("norm.weight".to_owned(), outside.to_owned())]));
        assert!(refusal(&path).contains("not a file name"), "{outside}");
    }
    index(dir.path(), &BTreeMap::new());
    assert!(refusal(&path).contains("lists no tensors"));
    fs::write(&path, "[]").unwrap();
    assert!(refusal(&path).contains("is not an index"));
    index(dir.path(), &map);
    fs::remove_file(&second).unwrap();
    let sentence = refusal(&path);
    assert!(sentence.contains("00002-of-00002.safetensors is missing"), "{sentence}");
}

#[test]
fn an_epsilon_of_its_own_goes_to_hugging_face_alone() {
    use model::weights::{Backbone, Layout, export, verify};
    let model = ModelConfig { norm_eps: 0.01, num_heads: Some(8), ..nano() };
    let tensors = network(&model);
    let normalize = model::normalize::Normalize { mean: vec![0.5; 3], std: vec![0.5; 3] };
    let backbone = Backbone { tensors: &tensors, model: &model, normalize };
    let dir = tempfile::tempdir().unwrap();
    export(dir.path(), &backbone, Layout::HuggingFace).unwrap();
    let config = fs::read_to_string(dir.path().join("config.json")).unwrap();
    assert!(
        config.contains("\"mlp_ratio\": 4,"),
        "an integer, as transformers 5 demands: {config}"
    );
    let back = verify(dir.path(), &backbone).unwrap();
    assert_eq!(back.difference, 0.0);
    // transformers interpolates in one form, whatever the network was trained with.
    assert_eq!(model.pos_interpolation, model::PosInterpolation::Offset);
    assert_eq!(back.pos_interpolation, model::PosInterpolation::Size);
    let other = ModelConfig { num_heads: None, ..model.clone() };
    let wrong = Backbone { model: &other, normalize: backbone.normalize.clone(), ..backbone };
    assert!(matches!(verify(dir.path(), &wrong), Err(Error::Mismatch { .. })));
    let other = model::normalize::Normalize { mean: vec![0.4; 3], std: vec![0.5; 3] };
    let other = Backbone { normalize: other, ..backbone };
    let error = verify(dir.path(), &other).unwrap_err().to_string();
    assert!(error.contains("normalization read back as"), "{error}");
    for layout in [Layout::Timm, Layout::Dinov2] {
        let sentence = export(dir.path(), &wrong, layout).unwrap_err().to_string();
        assert!(sentence.contains("norm_eps"), "{sentence}");
    }
    let file = TensorFile::open(&dir.path().join("model.safetensors")).unwrap();
    let back = infer(&file, &choose(&file, Role::Teacher).unwrap()).unwrap().model;
    assert_eq!((back.heads(), back.norm_eps), (8, 0.01));
}
