//! Tests of `import`, `export`, `inspect`, and `picture`, with the real binary.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use model::weights::{named_variables, write_safetensors};
use model::{Arch, ModelConfig, VisionTransformer};
use serde_json::Value;
use tch::{Device, nn};

fn simdino(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simdino")).args(arguments).current_dir(dir).output().unwrap()
}

fn text(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Writes a ViT-nano with the key names of a foreign training checkpoint.
fn foreign(dir: &Path) -> PathBuf {
    let vars = nn::VarStore::new(Device::Cpu);
    let model = ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        num_register_tokens: 2,
        layer_scale: Some(0.5),
        ..ModelConfig::default()
    };
    VisionTransformer::new(&vars.root(), &model).unwrap();
    let named: Vec<_> = named_variables(&vars)
        .into_iter()
        .map(|(name, value)| (format!("teacher.module.backbone.{name}"), value))
        .collect();
    let path = dir.join("foreign.safetensors");
    write_safetensors(&path, &named, &BTreeMap::new()).unwrap();
    path
}

#[test]
fn weights_go_in_and_out_and_are_accounted_for() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    foreign(dir);
    let report =
        text(&simdino(dir, &["import", "foreign.safetensors", "--out", "new/own.safetensors"]));
    std::fs::rename(dir.join("new/own.safetensors"), dir.join("own.safetensors")).unwrap();
    assert!(report.contains("63 of 63 tensors of the backbone"), "{report}");
    assert!(
        report.contains("vit_nano, patch size 8") && report.contains("4 attention heads"),
        "{report}"
    );
    let seen = text(&simdino(dir, &["inspect", "own.safetensors", "--json"]));
    let seen: Value = serde_json::from_str(&seen).unwrap();
    assert_eq!(seen["networks"][0]["model"]["num_register_tokens"], 2);
    for to in ["timm", "hf", "dinov2"] {
        let arguments = ["export", "own.safetensors", "--to", to, "--out", to, "--check"];
        let said = text(&simdino(dir, &arguments));
        assert!(said.contains("without any difference"), "{said}");
        let card = std::fs::read_to_string(dir.join(to).join("README.md")).unwrap();
        assert!(card.contains("2 register tokens") && card.contains("```python"), "{card}");
        assert!(text(&simdino(dir, &["inspect", to])).contains("2 register tokens"));
        let back = text(&simdino(dir, &["import", to, "--json"]));
        let back: Value = serde_json::from_str(&back).unwrap();
        assert_eq!(back["model"]["num_register_tokens"], 2, "{to}: {back}");
        assert_eq!(back["missing"].as_array().map(Vec::len), Some(0), "{to}: {back}");
    }
    let refused = simdino(dir, &["import", "foreign.safetensors", "model.arch=vit_tiny"]);
    let sentence = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{sentence}");
    assert!(sentence.contains("tensors of the backbone were found (0.0%)"), "{sentence}");
    assert_eq!(sentence.trim().lines().count(), 1, "{sentence}");
}

#[test]
fn pictures_are_drawn_from_any_weights() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    foreign(dir);
    text(&simdino(dir, &["data", "synth", "images", "--count", "6", "--size", "40"]));
    for (what, more) in [("pca", &[][..]), ("attention", &["--show", "mass,heads"])] {
        let common = ["picture", what, "images", "-w", "foreign.safetensors", "--images", "3"];
        let arguments = [&common[..], &["--side", "48", "--device", "cpu"], more].concat();
        let said = text(&simdino(dir, &arguments));
        assert!(said.contains("3 images; foreign.safetensors at 48 pixels"), "{said}");
        let picture = image::open(dir.join(format!("{what}.png"))).unwrap();
        assert!(picture.width() > 3 * 48, "{what}");
    }
    let wrong =
        simdino(dir, &["picture", "pca", "images", "-w", "foreign.safetensors", "--side", "50"]);
    assert_eq!(wrong.status.code(), Some(2));
    for (what, option, rule) in [
        ("attention", "--mass", "must be greater than 0 and at most 1 (got 3)"),
        ("pca", "--threshold", "must be at least 0 and below 1 (got 3)"),
    ] {
        let arguments = ["picture", what, "images", "-w", "foreign.safetensors", option, "3"];
        let wrong = simdino(dir, &arguments);
        let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
        assert_eq!((wrong.status.code(), said), (Some(2), format!("simdino: {option}: {rule}\n")));
    }
}

#[test]
fn several_networks_make_one_sheet() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    foreign(dir);
    text(&simdino(dir, &["data", "synth", "images", "--count", "9", "--size", "40"]));
    let drawn = |arguments: &[&str], file: &str| {
        let networks = ["-w", "foreign.safetensors", "-w", "foreign.safetensors", "--untrained"];
        let rest = ["--device", "cpu", "-o", file];
        let said = text(&simdino(dir, &[&["picture"], arguments, &networks, &rest].concat()));
        (said, image::open(dir.join(file)).unwrap().to_rgb8())
    };
    // Cells have 240 pixels, labels 18, and gaps 4: a row of images, and 2 rows of each of 3
    // networks.
    let pca = ["pca", "images", "--side", "48", "--images", "3", "--show", "foreground"];
    let (said, sheet) = drawn(&[&pca[..], &["--of", "tokens,keys"]].concat(), "pca.png");
    assert!(said.contains("foreign.safetensors, untrained at 48 pixels"), "{said}");
    assert_eq!(sheet.dimensions(), (3 * 244 + 4, 244 + 6 * (22 + 244) + 4));
    let cell = |row: u32| {
        let top = 4 + 244 + row * (22 + 244) + 22;
        image::imageops::crop_imm(&sheet, 4, top, 240, 240).to_image()
    };
    assert_eq!(cell(0), cell(2), "the same network");
    assert_ne!(cell(0), cell(1), "keys are not tokens");
    assert_ne!(cell(0), cell(4), "the untrained network is another one");

    // More than eight images are wrapped into blocks.
    let attention = ["attention", "images", "--side", "48", "--images", "9", "--show", "mean"];
    let (_, sheet) = drawn(&attention, "attention.png");
    assert_eq!(sheet.dimensions(), (8 * 244 + 4, 2 * (244 + 3 * (22 + 244)) + 4));

    let neighbors = ["neighbors", "images", "--queries", "2", "--neighbors", "3", "--crop", "32"];
    let (said, sheet) = drawn(&neighbors, "neighbors.png");
    // The folder has 9 images and their masks, as two classes.
    assert!(said.contains("2 of 18 images, each with its 3 nearest"), "{said}");
    assert_eq!(sheet.dimensions(), (4 * 124 + 4, 2 * 3 * (22 + 124) + 4));
    let framed =
        |x: u32| [[40, 170, 80], [230, 60, 50]].contains(&sheet.get_pixel(x, 4 + 22 + 2).0);
    assert!(framed(4 + 124) && !framed(4), "neighbors have frames, the query has none");
    let many = ["picture", "neighbors", "images", "-w", "foreign.safetensors", "--neighbors", "0"];
    assert_eq!(simdino(dir, &many).status.code(), Some(2));
}

#[test]
fn a_run_and_its_untrained_network_see_images_of_one_size() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir_all(dir.join("run/weights")).unwrap();
    std::fs::rename(foreign(dir), dir.join("run/weights/teacher.safetensors")).unwrap();
    // The sizes of its probe are not the usual ones for a network of 32 pixels.
    let sizes = ["probe.resize=64", "augment.global_crops_size=48", "augment.local_crops_size=16"];
    let shown = ["config", "show", "demo", "model.image_size=48", "model.patch_size=8"];
    let config = text(&simdino(dir, &[&shown[..], &sizes].concat()));
    std::fs::write(dir.join("run/config.resolved.yaml"), config).unwrap();
    text(&simdino(dir, &["data", "synth", "images", "--count", "9", "--size", "40"]));
    let drawn = |sizes: &[&str]| {
        let common = ["picture", "neighbors", "images/images", "-w", "run", "--untrained"];
        let file = ["--device", "cpu", "-o", "sheet.png"];
        text(&simdino(dir, &[&common[..], &file, sizes].concat()));
        std::fs::read(dir.join("sheet.png")).unwrap()
    };
    let of_probe = drawn(&["--resize", "64", "--crop", "48"]);
    assert_ne!(of_probe, drawn(&["--resize", "40", "--crop", "32"]));
    assert!(of_probe == drawn(&[]));
}

/// Checks that a command fails with exit code 1 and one line, and returns the line.
fn refusal(output: &Output) -> String {
    let sentence = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert_eq!(sentence.trim().lines().count(), 1, "{sentence}");
    sentence
}

#[test]
fn a_network_that_is_not_computed_whole_is_refused_by_every_verb() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = foreign(dir);
    let mut tensors = model::weights::read_safetensors(&path).unwrap().tensors;
    let norm = tensors["teacher.module.backbone.norm.weight"].shallow_clone();
    tensors.insert("teacher.module.backbone.norm_pre.weight".into(), norm);
    let tensors: Vec<_> = tensors.into_iter().collect();
    write_safetensors(&dir.join("clip.safetensors"), &tensors, &BTreeMap::new()).unwrap();
    text(&simdino(dir, &["data", "synth", "images", "--count", "6", "--size", "40"]));
    for arguments in [
        &["import", "clip.safetensors", "--out", "own.safetensors"][..],
        &["embed", "--weights", "clip.safetensors", "--data", "images", "--out", "x.npy"],
        &["export", "clip.safetensors", "--to", "timm", "--out", "out", "--check"],
        &["picture", "pca", "images", "-w", "clip.safetensors"],
    ] {
        let sentence = refusal(&simdino(dir, arguments));
        assert!(sentence.contains("norm_pre.weight"), "{sentence}");
    }
    assert!(!dir.join("own.safetensors").exists() && !dir.join("x.npy").exists());
    let import = ["import", "clip.safetensors", "--out", "own.safetensors", "--ignore-unused"];
    assert!(text(&simdino(dir, &import)).contains("unexpected  teacher.module.backbone.norm_pre"));
    let embed = ["embed", "--weights", "own.safetensors", "--data", "images", "--out", "x.npy"];
    let said = text(&simdino(dir, &embed));
    assert!(said.contains("shorter side resized to 40 pixels, center crop of 32"), "{said}");
    let said = text(&simdino(dir, &[&embed[..], &["--crop", "24", "--resize", "24"]].concat()));
    assert!(said.contains("shorter side resized to 24 pixels, center crop of 24"), "{said}");
    let odd = simdino(dir, &[&embed[..], &["--crop", "30"]].concat());
    assert_eq!(odd.status.code(), Some(2));
}

#[test]
fn parts_and_prefixes_are_found_in_folders() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let path = foreign(dir);
    let tensors = model::weights::read_safetensors(&path).unwrap().tensors;
    let named: Vec<_> = tensors
        .into_iter()
        .map(|(name, tensor)| (name.replace("teacher.module", "left"), tensor))
        .collect();
    let folder = dir.join("parts");
    std::fs::create_dir(&folder).unwrap();
    let part = "model-00001-of-00002.safetensors";
    write_safetensors(&folder.join(part), &named, &BTreeMap::new()).unwrap();
    let sentence = refusal(&simdino(dir, &["import", "parts"]));
    assert!(sentence.contains("but not their index"), "{sentence}");
    let map: BTreeMap<_, _> = named.iter().map(|(name, _)| (name, part)).collect();
    let index = serde_json::json!({"weight_map": map}).to_string();
    std::fs::write(folder.join("model.fp32.safetensors.index.json"), index).unwrap();
    for prefix in ["left", "left.backbone"] {
        let report = text(&simdino(dir, &["import", "parts", "--prefix", prefix]));
        assert!(report.contains("under left.backbone"), "{report}");
    }
    let sentence = refusal(&simdino(dir, &["import", "parts", "--prefix", "right"]));
    assert!(sentence.contains("begin with left.backbone"), "{sentence}");
    let sentence = refusal(&simdino(dir, &["import", &format!("parts/{part}")]));
    assert!(sentence.contains("one of several parts"), "{sentence}");
    let seen = text(&simdino(dir, &["inspect", "parts/model.fp32.safetensors.index.json"]));
    assert!(seen.contains("left.backbone: vit_nano"), "{seen}");
}
