//! Tests of runs that start from the weights of `init.from`, with the real binary.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::collections::BTreeMap;

use common::Bench;
use tch::Tensor;

fn weights(bench: &Bench, name: &str) -> BTreeMap<String, Tensor> {
    let path = bench.path(&format!("runs/{name}/weights/teacher.safetensors"));
    model::weights::read_safetensors(&path).unwrap().tensors
}

fn log(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.path(&format!("runs/{name}/log.txt"))).unwrap()
}

/// Returns how many of the tensors in `a` whose names start with `front` are equal in `b`, and how
/// many there are.
fn equal(
    a: &BTreeMap<String, Tensor>,
    b: &BTreeMap<String, Tensor>,
    front: &str,
) -> (usize, usize) {
    let of_front: Vec<_> = a.iter().filter(|(name, _)| name.starts_with(front)).collect();
    let same = of_front.iter().filter(|(name, x)| b.get(*name).is_some_and(|y| y == *x)).count();
    (same, of_front.len())
}

#[test]
fn a_frozen_backbone_is_that_of_the_file_and_the_head_is_fresh() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=first"]);
    let start = ["train", "tiny.yaml", "init.from=runs/first", "run.seed=5"];
    let frozen = ["run.name=frozen", "init.freeze_backbone_steps=10"];
    bench.ok(&[&start[..], &frozen].concat());
    let (first, second) = (weights(&bench, "first"), weights(&bench, "frozen"));
    let (same, all) = equal(&first, &second, "backbone.");
    assert_eq!(same, all, "the backbone is that of the file");
    let (same, all) = equal(&first, &second, "head.");
    assert!(same < all, "the head is another");
    assert!(log(&bench, "frozen").contains("starting from runs/first/weights/teacher.safetensors"));

    let free = ["run.name=free", "init.head=true"];
    bench.ok(&[&start[..], &free].concat());
    assert_eq!(equal(&first, &weights(&bench, "free"), "backbone.").0, 0, "it went on training");
    assert!(log(&bench, "free").contains("and its head"));
}

#[test]
fn sizes_are_made_to_fit() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=first", "train.stop_after=2"]);
    let sizes = [
        "model.image_size=64",
        "augment.global_crops_size=64",
        "model.patch_size=16",
        "train.stop_after=2",
        "init.from=runs/first",
    ];
    bench.ok(&[&["train", "tiny.yaml", "run.name=second"][..], &sizes].concat());
    let log = log(&bench, "second");
    assert!(log.contains("resized backbone.patch_embed.proj.weight"), "{log}");
    // A second stage with another method has tokens that the first one lacks.
    let method = ["method=simdinov2", "run.name=third", "init.from=runs/first"];
    bench.ok(&[&["train", "tiny.yaml", "init.min_matched=0.6"][..], &method].concat());
}

#[test]
fn weights_that_do_not_fit_are_refused_before_anything_is_written() {
    let bench = Bench::new();
    let message = bench.fails(1, &["train", "tiny.yaml", "init.from=nowhere.pth"]);
    assert!(message.contains("nowhere.pth: no such file"), "{message}");
    bench.ok(&["train", "tiny.yaml", "run.name=first", "train.stop_after=1"]);
    let other = ["train", "tiny.yaml", "run.name=other", "model.arch=vit_tiny"];
    let both = [
        "a vit_nano (width 128, 4 blocks, patch size 8)",
        "a vit_tiny (width 192, 12 blocks, patch size 8)",
        "set model.arch=vit_nano",
    ];
    let said = |args: &[&str]| bench.fails(1, &[&other[..], args].concat());
    let message = said(&["init.from=runs/first"]);
    assert!(both.iter().all(|words| message.contains(words)), "{message}");
    assert!(!message.contains("min"), "no share of 0 tensors would do: {message}");
    let message = said(&["init.from=runs/first", "--dry-run"]);
    assert!(message.contains(both[0]), "a dry run finds it too: {message}");
    // The weights are of a deeper network than that of the config.
    bench.ok(&["train", "tiny.yaml", "run.name=deep", "model.arch=vit_tiny", "train.stop_after=1"]);
    let message = bench.fails(1, &["train", "tiny.yaml", "run.name=new", "init.from=runs/deep"]);
    assert!(message.contains("set model.arch=vit_tiny"), "{message}");
    // Tokens that the weights lack may be initialized randomly, but only if the config allows it.
    let tokens = ["method=simdinov2", "run.name=new", "init.from=runs/first"];
    let message = bench.fails(1, &[&["train", "tiny.yaml"][..], &tokens].concat());
    assert!(
        message.contains("not found:") && message.contains("lower init.min_matched"),
        "{message}"
    );
}

#[test]
fn a_continued_run_does_not_start_again() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=first"]);
    let second = ["train", "tiny.yaml", "run.name=second", "init.from=runs/first"];
    bench.ok(&[&second[..], &["train.stop_after=4"]].concat());
    std::fs::remove_dir_all(bench.path("runs/first")).unwrap();
    bench.ok(&[&second[..], &["--resume", "auto"]].concat());
}

#[test]
fn weights_of_another_function_are_refused_with_the_key_to_set() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "run.name=first", "train.stop_after=1", "model.qk_norm=true"]);
    let second = ["train", "tiny.yaml", "run.name=second", "init.from=runs/first"];
    let message = bench.fails(1, &second);
    assert!(message.contains("set model.qk_norm=true"), "{message}");
    let heads = [&second[..], &["model.qk_norm=true", "model.num_heads=2"]].concat();
    let message = bench.fails(1, &heads);
    assert!(message.contains("set model.num_heads="), "{message}");
    bench.ok(&[&second[..], &["model.qk_norm=true", "train.stop_after=1"]].concat());
    // An export to Hugging Face has a LayerScale of 1.
    bench.ok(&["train", "tiny.yaml", "run.name=plain", "train.stop_after=1"]);
    bench.ok(&["export", "runs/plain", "--to", "hf", "--out", "hf"]);
    let third = ["train", "tiny.yaml", "run.name=third", "train.stop_after=1", "init.from=hf"];
    let message = bench.fails(1, &third);
    assert!(message.contains("set model.layer_scale=1"), "{message}");
    bench.ok(&[&third[..], &["model.layer_scale=1"]].concat());
}
