//! Tests that compare the recipes with the published configs: all values in which the published
//! configs differ from each other, under our names.

use std::path::Path;

use serde_json::{Value, json};
use trainer::plan::Plan;
use trainer::schedule::Schedules;

use super::{Loaded, RunConfig, load};

/// Numbers of images of ImageNet-1k and of ImageNet-22k (fall 2011).
const IN1K: usize = 1_281_167;
const IN22K: usize = 14_197_122;

fn recipe(name: &str) -> RunConfig {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs").join(name);
    // Some recipes start from weights, which the user must name.
    let given = ["data.path=a", "init.from=b"].map(str::to_owned);
    let Loaded { config, notes, warnings, .. } = load(&path, &given).unwrap();
    // The user also names the images of a probe.
    let warnings: Vec<_> = warnings.iter().filter(|line| !line.starts_with("probe has ")).collect();
    let notes: Vec<_> = notes.iter().filter(|line| !line.starts_with("sizing: auto: ")).collect();
    assert!(notes.is_empty() && warnings.is_empty(), "{name}: {notes:?} {warnings:?}");
    config
}

fn assert_values(name: &str, expected: Value) {
    let config = serde_json::to_value(recipe(name)).unwrap();
    for (section, keys) in expected.as_object().unwrap() {
        for (key, value) in keys.as_object().unwrap() {
            assert_eq!(config[section][key], *value, "{name}: {section}.{key}");
        }
    }
}

/// Returns the number of steps of a run, of its warm-up, of the warm-up of the teacher's
/// temperature, and of the steps for which the last layer is frozen.
fn steps(name: &str, images: usize) -> [u64; 4] {
    let config = recipe(name);
    let plan = Plan::new(&config.train, images).unwrap();
    let of = |epochs: f64| (epochs * plan.steps_per_epoch as f64).round() as u64;
    let schedules = Schedules::new(
        &config.optim,
        config.train.batch_size,
        plan.steps_per_epoch,
        plan.total_steps,
    );
    let frozen = (0..plan.total_steps).find(|&step| !schedules.at(step).last_layer_frozen);
    [
        plan.total_steps,
        of(config.optim.warmup_epochs),
        of(config.dino.teacher_temp_warmup_epochs),
        frozen.unwrap(),
    ]
}

#[test]
fn every_recipe_is_valid_and_means_what_it_says() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let names: Vec<String> = std::fs::read_dir(configs)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        let config = recipe(&name);
        let expected = name.trim_end_matches(".yaml");
        assert!(config.run.name.as_deref() == Some(expected) || name == "default.yaml", "{name}");
    }
}

#[test]
fn dinov2_on_imagenet_1k_is_the_baseline_of_simdino() {
    let sizes = [("vits16", "vit_small"), ("vitb16", "vit_base"), ("vitl16", "vit_large")];
    for (size, arch) in sizes {
        let name = format!("dinov2_{size}_in1k.yaml");
        assert_values(
            &name,
            json!({
                "augment": {
                    "global_crops_scale": [0.4, 1.0], "local_crops_scale": [0.05, 0.4],
                    "local_crops_number": 10, "local_crops_size": 96, "blur": "kernel9",
                    "blur_prob": [1.0, 0.1, 0.5],
                },
                "model": {
                    "arch": arch, "patch_size": 16, "num_register_tokens": 4,
                    "pos_interpolation": "antialias", "drop_path_rate": 0.3, "layer_scale": 1e-5,
                },
                "head": {
                    "prototypes": 65536, "out_dim": 256, "separate_patch_head": false,
                },
                "dino": {
                    "teacher_temp": 0.07, "teacher_temp_warmup_epochs": 30.0,
                    "teacher_temp_warmup_form": "exclusive", "centering": "softmax",
                },
                "koleo": { "loss_weight": 0.1, "groups": 8 },
                "optim": {
                    "base_lr": 4e-3, "warmup_epochs": 10.0, "warmup_start_lr": 1e-6,
                    "warmup_form": "exclusive", "weight_decay_end": 0.4, "layerwise_decay": 0.9,
                    "momentum_teacher": 0.992,
                },
                "train": { "batch_size": 1024, "epochs": 100.0 },
            }),
        );
        assert_eq!(steps(&name, IN1K), [125_100, 12_510, 37_530, 1251]);
    }
}

#[test]
fn dinov2_short_is_metas() {
    let name = "dinov2_vitl16_short_in1k.yaml";
    assert_values(
        name,
        json!({
            "augment": {
                "global_crops_scale": [0.32, 1.0], "local_crops_scale": [0.05, 0.32],
                "local_crops_number": 8, "local_crops_size": 96,
            },
            "model": {
                "arch": "vit_large", "patch_size": 16, "num_register_tokens": 0, "ffn": "mlp",
                "pos_interpolation": "offset", "drop_path_rate": 0.3, "layer_scale": 1e-5,
                "drop_path_schedule": "uniform", "drop_path_form": "batch",
            },
            "head": { "prototypes": 65536, "out_dim": 256, "separate_patch_head": false },
            "dino": { "teacher_temp_warmup_form": "inclusive", "centering": "softmax" },
            "koleo": { "loss_weight": 0.1, "groups": 32 },
            "optim": {
                "base_lr": 4e-3, "warmup_start_lr": 0.0, "warmup_form": "inclusive",
                "weight_decay_end": 0.4, "layerwise_decay": 0.9, "patch_embed_lr_mult": 0.2,
                "momentum_teacher": 0.992,
            },
            "train": { "batch_size": 2048 },
        }),
    );
    // 100, 10, 30, and 1 epochs of 1250 steps.
    assert_eq!(steps(name, IN1K), [125_000, 12_500, 37_500, 1250]);
}

#[test]
fn dinov2_long_is_metas() {
    let name = "dinov2_vitl14_in22k.yaml";
    assert_values(
        name,
        json!({
            "augment": {
                "global_crops_scale": [0.32, 1.0], "local_crops_scale": [0.05, 0.32],
                "local_crops_number": 8, "global_crops_size": 224, "local_crops_size": 98,
            },
            "model": {
                "arch": "vit_large", "patch_size": 14, "num_register_tokens": 0, "ffn": "swiglu",
                "pos_interpolation": "offset", "drop_path_rate": 0.4, "layer_scale": 1e-5,
                "drop_path_schedule": "uniform", "drop_path_form": "batch",
            },
            "head": {
                "prototypes": 131_072, "out_dim": 384, "separate_patch_head": true,
                "patch_out_dim": 256, "norm_last_layer": false,
            },
            "dino": {
                "teacher_temp_warmup_form": "inclusive", "centering": "sinkhorn_knopp",
            },
            "koleo": { "loss_weight": 0.1, "groups": 96 },
            "optim": {
                "base_lr": 2e-4, "warmup_start_lr": 0.0, "weight_decay": 0.04,
                "weight_decay_end": 0.2, "layerwise_decay": 1.0, "patch_embed_lr_mult": 0.2,
                "momentum_teacher": 0.994,
            },
            "train": { "batch_size": 3072 },
        }),
    );
    // 500, 80, 30, and 1 epochs of 1250 steps.
    assert_eq!(steps(name, IN22K), [625_000, 100_000, 37_500, 1250]);
}

#[test]
fn boosted_dino_is_that_of_its_readme() {
    let name = "dino_vits16_boosted_in1k.yaml";
    assert_values(
        name,
        json!({
            "augment": { "local_crops_number": 8, "blur": "pillow" },
            "model": { "arch": "vit_small", "patch_size": 16, "drop_path_rate": 0.1 },
            "head": { "prototypes": 65536, "norm_last_layer": false },
            "dino": {
                "teacher_temp_start": 0.04, "teacher_temp": 0.07, "teacher_temp_warmup_epochs": 30.0,
            },
            "optim": { "base_lr": 5e-4, "lr_scaling": "linear_wrt256", "warmup_epochs": 10.0 },
            "train": { "batch_size": 1024, "epochs": 300.0 },
        }),
    );
    assert_eq!(recipe(name).learning_rate(), 2e-3);
}
