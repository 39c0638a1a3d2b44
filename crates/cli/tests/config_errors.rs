//! Tests of the messages of the real binary about configs: on standard error, one line per problem,
//! with exit code 2.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::Bench;

/// Returns the lines of `config check` about a file with this text, which it must reject.
fn check(text: &str, overrides: &[&str]) -> Vec<String> {
    let bench = Bench::without_images();
    fs::write(bench.path("my.yaml"), text).unwrap();
    let said = bench.fails(2, &[&["config", "check", "my.yaml"], overrides].concat());
    said.lines().map(str::to_owned).collect()
}

#[test]
fn all_problems_come_at_once_each_on_its_line() {
    let text = "data: {path: photos}\ntrain: {batch_size: many}\noptim: {base_ir: 1}\n";
    let said = check(text, &["model.arch=vit_huge"]);
    assert_eq!(
        said,
        [
            "simdino: unknown key 'optim.base_ir': did you mean 'optim.base_lr'?",
            "simdino: train.batch_size: expected an integer, got 'many'",
            "simdino: model.arch: expected one of vit_nano, vit_tiny, vit_small, vit_base, vit_large, \
             vit_so150m, vit_so150m2, vit_so300m, vit_so400m, vit_giant2, got 'vit_huge'",
        ]
    );
}

#[test]
fn values_that_make_no_sense_together_are_named() {
    let text = "train: {batch_size: 12}\nprobe: {train_path: a, test_path: b, resize: 200}\n";
    let said = check(text, &["optim.warmup_epochs=200"]);
    assert_eq!(
        said,
        [
            "simdino: data.path: required: a folder, a list file, tar shards or parquet files",
            "simdino: train.batch_size: must be a multiple of simdino.rate_groups 8 (got 12); \
             simdino.rate_groups=6 or train.batch_size=16 would do",
            "simdino: probe.resize: must be at least the crop, model.image_size 224 (got 200)",
            "simdino: optim.warmup_epochs: must not exceed train.epochs 100 (got 200)",
        ]
    );
}

#[test]
fn what_is_no_yaml_is_one_line_with_its_place() {
    let said = check("train: [1\nmodel: 2\n", &[]);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with("simdino: my.yaml: not valid YAML: "), "{said:?}");
    assert!(said[0].contains("line "), "{said:?}");
}

#[test]
fn a_good_config_is_ok_and_shown_with_every_default() {
    let bench = Bench::without_images();
    fs::write(bench.path("my.yaml"), "data: {path: photos}\n").unwrap();
    let said = bench.ok(&["config", "check", "my.yaml", "train.epochs=20"]);
    assert_eq!(said.lines().next(), Some("ok"));

    let shown = bench.ok(&["config", "show", "my.yaml", "train.epochs=20"]);
    assert!(shown.contains("  name: my\n") && shown.contains("  epochs: 20.0\n"), "{shown}");
    fs::write(bench.path("shown.yaml"), &shown).unwrap();
    assert_eq!(bench.ok(&["config", "show", "shown.yaml"]), shown);
}

/// Recipes lack only what the user must provide. Everything else in them is valid, and their
/// headers state the command, the hardware, and the expected results.
#[test]
fn every_recipe_passes_a_dry_run() {
    let bench = Bench::without_images();
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let recipes: Vec<_> =
        fs::read_dir(&configs).unwrap().map(|entry| entry.unwrap().path()).collect();
    let recipes: Vec<_> =
        recipes.iter().filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    assert!(recipes.len() > 20, "{recipes:?}");
    let half = recipes.len().div_ceil(2);
    std::thread::scope(|threads| {
        for part in recipes.chunks(half) {
            threads.spawn(|| part.iter().for_each(|recipe| dry_run(&bench, recipe)));
        }
    });
}

fn dry_run(bench: &Bench, recipe: &Path) {
    let name = recipe.file_name().unwrap().to_str().unwrap();
    let text = fs::read_to_string(recipe).unwrap();
    if name != "default.yaml" {
        for part in ["# command: ", "# hardware: ", "# expected: "] {
            assert!(text.contains(part) || name == "quickstart.yaml", "{name} has no '{part}'");
        }
        // The command in the header works in any folder, so it names the recipe rather than a file.
        let stem = name.trim_end_matches(".yaml");
        assert!(text.contains(&format!("simdino train {stem}")) || stem == "demo", "{name}");
        assert!(!text.contains("cargo run"), "{name}");
    }
    // The networks are made small to save time and memory. `config::published` tests the recipes as
    // they are, and the sizes of networks have their own tests.
    let said = bench.ok(&[
        "train",
        recipe.to_str().unwrap(),
        "--dry-run",
        "data.source=synthetic",
        "data.path=null",
        "probe.train_path=",
        "probe.test_path=",
        "init.from=",
        "model.arch=vit_nano",
        "head.hidden_dim=64",
        "run.device=cpu",
        "run.threads=1",
    ]);
    assert!(said.contains("\nsteps ") && said.contains("\ncheckpoints "), "{name}: {said}");
}
