//! Weight files: bit-exact round trips and hostile files.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use model::normalize::Normalize;
use model::weights::{
    Backbone, Layout, PretrainedBackbone, Role, TensorFile, export, named_variables, normalization,
    read_safetensors, write_safetensors,
};
use model::{Arch, Error, ModelConfig, VisionTransformer};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn};

fn nano() -> ModelConfig {
    ModelConfig { arch: Arch::VitNano, patch_size: 8, image_size: 32, ..Default::default() }
}

fn named(name: &str, tensor: Tensor) -> (String, Tensor) {
    (name.to_owned(), tensor)
}

fn metadata() -> BTreeMap<String, String> {
    ["z", "format", "a"].iter().map(|k| (k.to_string(), format!("value of \"{k}\""))).collect()
}

/// Returns a tensor of each dtype, an empty one, a scalar, and a transposed view.
fn mixed() -> Vec<(String, Tensor)> {
    let base = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]) - 7.3;
    vec![
        named("f32.t", base.tr()),
        named("f64", base.to_kind(Kind::Double) / 3.0),
        named("f16", base.to_kind(Kind::Half)),
        named("bf16", base.to_kind(Kind::BFloat16)),
        named("i64", Tensor::from_slice(&[i64::MIN, -1, i64::MAX])),
        named("u8", Tensor::from_slice(&[0u8, 7, 255])),
        named("scalar", Tensor::from(1.5f32)),
        named("empty", Tensor::zeros([0, 3], (Kind::Float, Device::Cpu))),
        named("nan", Tensor::from_slice(&[f32::NAN, f32::INFINITY, -0.0])),
    ]
}

fn raw(tensor: &Tensor) -> Vec<u8> {
    let tensor = tensor.contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.copy_data_u8(&mut bytes, tensor.numel());
    bytes
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights.safetensors");
    (folder, path)
}

#[test]
fn round_trip_keeps_every_bit() {
    let (_folder, path) = scratch();
    write_safetensors(&path, &mixed(), &metadata()).unwrap();
    let file = read_safetensors(&path).unwrap();
    assert_eq!(file.metadata, metadata());
    assert_eq!(file.tensors.len(), mixed().len());
    for (name, expected) in mixed() {
        let got = &file.tensors[&name];
        assert_eq!(got.kind(), expected.kind(), "{name}");
        assert_eq!(got.size(), expected.size(), "{name}");
        assert_eq!(raw(got), raw(&expected), "{name}");
    }
}

#[test]
fn the_same_content_gives_the_same_bytes_in_any_order() {
    let (_folder, path) = scratch();
    write_safetensors(&path, &mixed(), &metadata()).unwrap();
    let first = fs::read(&path).unwrap();
    let mut reversed = mixed();
    reversed.reverse();
    write_safetensors(&path, &reversed, &metadata()).unwrap();
    assert_eq!(first, fs::read(&path).unwrap());
}

#[test]
fn data_is_aligned_and_the_header_is_the_format_s() {
    let (_folder, path) = scratch();
    write_safetensors(&path, &mixed(), &BTreeMap::new()).unwrap();
    let bytes = fs::read(&path).unwrap();
    let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(header_len % 8, 0);
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
    assert!(header.get("__metadata__").is_none());
    assert_eq!(header["f64"]["dtype"], "F64");
    assert_eq!(header["f32.t"]["shape"], serde_json::json!([6, 4]));
    for (name, info) in header.as_object().unwrap() {
        let element = match info["dtype"].as_str().unwrap() {
            "F64" | "I64" => 8,
            "F32" => 4,
            "F16" | "BF16" => 2,
            _ => 1,
        };
        assert_eq!(info["data_offsets"][0].as_u64().unwrap() % element, 0, "{name}");
    }
}

#[test]
fn writing_replaces_the_file_and_leaves_nothing_behind() {
    let (folder, path) = scratch();
    fs::write(&path, b"older and longer than what comes".repeat(100)).unwrap();
    write_safetensors(&path, &mixed(), &metadata()).unwrap();
    assert!(read_safetensors(&path).is_ok());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let (folder, path) = scratch();
    write_safetensors(&path, &mixed(), &metadata()).unwrap();
    let before = fs::read(&path).unwrap();
    let check = |tensors: &[(String, Tensor)]| {
        let error = write_safetensors(&path, tensors, &metadata()).unwrap_err();
        assert!(error.to_string().contains("weights.safetensors"), "{error}");
        assert_eq!(before, fs::read(&path).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        error
    };
    let one = || Tensor::from(1f32);
    let error = check(&[named("flag", Tensor::from(true))]);
    assert!(matches!(error, Error::WeightsKind { .. }), "{error}");
    let error = check(&[named("twice", one()), named("twice", Tensor::from(1f64))]);
    assert!(matches!(error, Error::WeightsName { .. }), "{error}");
    let error = check(&[named("twice", one()), named("twice", one())]);
    assert!(matches!(error, Error::WeightsName { .. }), "{error}");
    let error = check(&[named("__metadata__", one())]);
    assert!(matches!(error, Error::WeightsName { .. }), "{error}");
    let nowhere = folder.path().join("missing/weights.safetensors");
    let error = write_safetensors(&nowhere, &mixed(), &metadata()).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// Writes a file with this header and `data` zero bytes, and returns the error of reading it.
fn crafted(path: &Path, header: &str, data: usize) -> Error {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    fs::write(path, bytes).unwrap();
    let error = read_safetensors(path).unwrap_err();
    assert!(error.to_string().contains("weights.safetensors"), "{error}");
    error
}

#[test]
fn hostile_files_are_errors_that_name_the_file() {
    let (_folder, path) = scratch();
    let error = read_safetensors(&path).unwrap_err();
    assert!(matches!(error, Error::Io { action: "read", .. }), "{error}");
    let entry = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    crafted(&path, "", 0);
    crafted(&path, "not json", 8);
    crafted(&path, &entry("F32", "[2]", "[0,8]"), 4); // truncated
    crafted(&path, &entry("F32", "[2]", "[0,8]"), 12); // bytes left over
    crafted(&path, &entry("F32", "[3]", "[0,8]"), 8); // shape against offsets
    crafted(&path, &entry("F32", "[2]", "[8,0]"), 8);
    crafted(&path, &entry("F32", "[9223372036854775807,4]", "[0,8]"), 8); // overflow
    let huge = crafted(&path, &entry("F32", "[0,18446744073709551615]", "[0,0]"), 0);
    assert!(matches!(huge, Error::WeightsTensor { .. }), "{huge}");
    let kind = crafted(&path, &entry("C64", "[2]", "[0,16]"), 16);
    assert!(matches!(kind, Error::WeightsKind { .. }), "{kind}");
    let overlap = r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#;
    crafted(&path, overlap, 6);
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(matches!(read_safetensors(&path).unwrap_err(), Error::WeightsFile { .. }));
    fs::write(&path, [1, 2, 3]).unwrap();
    assert!(matches!(read_safetensors(&path).unwrap_err(), Error::WeightsFile { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_never_panic(
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1u8..), 0..4),
        in_header: bool,
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        thread_local! {
            static CASE: (tempfile::TempDir, PathBuf, Vec<u8>) = {
                let (folder, path) = scratch();
                write_safetensors(&path, &mixed(), &metadata()).unwrap();
                let bytes = fs::read(&path).unwrap();
                (folder, path, bytes)
            };
        }
        CASE.with(|(_, path, original)| {
            let mut bytes = original.clone();
            let header = 8 + u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
            let range = if in_header { header } else { bytes.len() };
            for (index, flip) in &flips {
                bytes[index.index(range)] ^= flip;
            }
            if let Some(cut) = &cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(path, &bytes).unwrap();
            let result = read_safetensors(path);
            prop_assert!(cut.is_none() || result.is_err(), "a truncated file was read");
            Ok(())
        })?;
    }
}

fn backbone() -> Vec<(String, Tensor)> {
    let vars = nn::VarStore::new(Device::Cpu);
    VisionTransformer::new(&vars.root(), &nano()).unwrap();
    named_variables(&vars)
}

#[test]
fn what_a_file_of_simdino_states_is_kept_and_never_guessed() {
    let (folder, path) = scratch();
    let write = |model: &str| {
        let entries = [("format", "simdino"), ("model", model), ("seed", "7")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        write_safetensors(&path, &backbone(), &entries.into()).unwrap();
        PretrainedBackbone::open(&path, Device::Cpu)
    };
    let opened = write(&serde_json::to_string(&nano()).unwrap()).unwrap();
    let copy = folder.path().join("copy.safetensors");
    opened.save(&copy, Role::Teacher).unwrap();
    assert_eq!(read_safetensors(&copy).unwrap().metadata["seed"], "7");
    let error = write("{\"arch\": \"vit_of_tomorrow\"}").unwrap_err().to_string();
    assert!(error.contains("description of its model cannot be read"), "{error}");
}

#[test]
fn the_mean_and_the_deviation_are_of_the_channels_of_the_network() {
    let (_folder, path) = scratch();
    let read = |mean: &str| {
        let entries = [("mean", mean), ("std", "[0.25]")];
        let entries = entries.map(|(key, value)| (key.to_owned(), value.to_owned()));
        write_safetensors(&path, &backbone(), &entries.into()).unwrap();
        normalization(&TensorFile::open(&path).unwrap(), 3)
    };
    let found = read("[0.1, 0.2, 0.3]").unwrap().unwrap();
    assert_eq!((found.mean, found.std), (vec![0.1, 0.2, 0.3], vec![0.25; 3]));
    let error = read("[0.1, 0.2]").unwrap_err().to_string();
    assert!(error.contains("the mean of 2 channels, but the network has 3"), "{error}");
}

#[test]
fn an_export_believes_no_preprocessor_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let (tensors, model) = (backbone(), nano());
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.5; 3] };
    let backbone = Backbone { tensors: &tensors, model: &model, normalize };
    let to = |layout| export(folder.path(), &backbone, layout);
    to(Layout::Timm).unwrap();
    to(Layout::HuggingFace).unwrap();
    to(Layout::HuggingFace).unwrap();
    for layout in [Layout::Timm, Layout::Dinov2] {
        let error = to(layout).unwrap_err().to_string();
        assert!(error.contains("preprocessor_config.json describes how another"), "{error}");
    }
}
