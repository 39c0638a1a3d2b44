//! Tests of the recipes embedded in the real binary, in a folder that contains none of them.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use common::{Bench, stderr};

/// Returns the name of the run that a config describes, and the notes on standard error.
fn run_name(bench: &Bench, config: &str) -> (String, String) {
    let output = bench.run(&["config", "show", "--json", config]);
    assert!(output.status.success(), "{config}: {}", stderr(&output));
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    (shown["run"]["name"].as_str().unwrap().to_owned(), stderr(&output))
}

#[test]
fn a_name_is_a_recipe_wherever_a_config_is_taken() {
    let bench = Bench::new();
    assert_eq!(run_name(&bench, "simdino_vitb16_in1k").0, "simdino_vitb16_in1k");
    assert_eq!(run_name(&bench, "default").0, "default", "which gives its run no name");
    let images = "data.path=images/images";
    bench.ok(&["config", "check", "quickstart", images]);
    bench.ok(&["train", "quickstart", images, "run.device=cpu", "--dry-run"]);
    bench.ok(&["picture", "crops", "images/images", "--config", "quickstart"]);
    let short = ["--threads", "1", "--seconds", "0.1"];
    bench.ok(&[&["bench", "data", "images/images", "--config", "quickstart"][..], &short].concat());
    let small = ["run.device=cpu", "model.arch=vit_nano", "train.batch_size=16"];
    let step = ["bench", "step", "quickstart", "--steps", "1", "--warmup", "0"];
    bench.ok(&[&step[..], &small].concat());
}

#[test]
fn a_folder_of_images_needs_no_config() {
    let bench = Bench::new();
    let small = ["run.device=cpu", "train.stop_after=1", "train.epochs=1"];
    let output = bench.run(&[&["train", "images/images"][..], &small].concat());
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("training on images/images with the recipe quickstart"), "{said}");
    let chosen = said.lines().find(|line| line.contains("on a CPU: ")).unwrap();
    assert!(chosen.contains("chosen for ") && chosen.contains(" train.batch_size=16"), "{chosen}");
    assert!(!chosen.contains("train.epochs"), "what is given is not chosen: {chosen}");
    // Typing the printed values gives the same run.
    let resolved = |name: &str| {
        let path = bench.path(&format!("runs/{name}/config.resolved.yaml"));
        let named = format!("name: {name}\n");
        fs::read_to_string(path).unwrap().replace(&named, "").replace("sizing: auto\n", "")
    };
    let typed: Vec<&str> = chosen.split("CPU: ").nth(1).unwrap().split(' ').collect();
    let again = ["train", "default", "data.path=images/images", "run.name=typed"];
    bench.ok(&[&again[..], &small, &typed].concat());
    assert_eq!(resolved("images"), resolved("typed").replace("sizing: recipe\n", ""));
    let refused = bench.fails(2, &["train", "runs/images"]);
    assert!(refused.contains("runs/images is a run: continue it"), "{refused}");
}

#[test]
fn a_run_keeps_the_text_of_its_recipe() {
    let bench = Bench::new();
    let small = [
        "train",
        "quickstart",
        "data.path=images/images",
        "run.device=cpu",
        "model.arch=vit_nano",
        "model.image_size=32",
        "augment.global_crops_size=32",
        "augment.local_crops_size=16",
        "train.epochs=1",
        "train.stop_after=1",
    ];
    bench.ok(&small);
    let kept = fs::read_to_string(bench.path("runs/quickstart/config.yaml")).unwrap();
    assert_eq!(kept, bench.ok(&["config", "recipes", "quickstart"]));
}

#[test]
fn a_file_wins_and_a_folder_does_not() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("demo")).unwrap();
    assert_eq!(run_name(&bench, "demo"), ("demo".into(), String::new()));
    fs::write(bench.path("quickstart"), "run: {name: mine}\n").unwrap();
    assert_eq!(run_name(&bench, "quickstart").0, "mine");
    // A dangling link was meant as a file, so the recipe does not take its place.
    symlink("gone.yaml", bench.path("default")).unwrap();
    let said = bench.fails(2, &["config", "show", "default"]);
    assert!(said.contains("config file default does not exist"), "{said}");
}

#[test]
fn a_file_that_is_not_read_is_named() {
    let bench = Bench::without_images();
    fs::write(bench.path("quickstart.yaml"), "run: {name: mine}\n").unwrap();
    let (name, said) = run_name(&bench, "quickstart");
    assert_eq!(name, "quickstart");
    assert!(said.contains("the file quickstart.yaml in this folder is not read"), "{said}");
    assert_eq!(run_name(&bench, "quickstart.yaml").0, "mine");
}

#[test]
fn a_wrong_name_says_what_was_meant() {
    let bench = Bench::without_images();
    let lists = "`simdino config recipes` lists";
    for (typed, says) in [
        ("quikstart", "did you mean quickstart?"),
        ("simdino_vitb16", "did you mean simdino_vitb16_coco or simdino_vitb16_in1k?"),
        ("my_own", "no folder, config file, or recipe named 'my_own': "),
    ] {
        let said = bench.fails(2, &["train", typed]);
        assert!(said.contains(says) && said.contains(lists), "{typed}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    for (typed, says) in [
        ("tiny", "did you mean tiny.yaml?"),
        ("configs/demo.yaml", "use 'demo' for the built-in recipe"),
        ("demo.yaml", "use 'demo' for the built-in recipe"),
        ("./demo", "use 'demo' for the built-in recipe"),
        (".", "is a folder"),
        ("no.yaml", "config file no.yaml does not exist\n"),
    ] {
        let said = bench.fails(2, &["config", "check", typed]);
        assert!(said.contains(says), "{typed}: {said}");
    }
    fs::write(bench.path("photo.jpg"), [0xff, 0xd8, 0xff]).unwrap();
    fs::create_dir(bench.path("photos")).unwrap();
    for (words, says) in [
        (vec!["./no/"], "no such file or folder: ./no/"),
        (vec!["photo.jpg"], "not a config file (.yaml): images are given as a folder"),
        (vec!["data.path=photos"], "must come before KEY=VALUE arguments"),
        (vec!["quickstart", "photos"], "did you mean data.path=photos?"),
    ] {
        let said = bench.fails(2, &[vec!["train"], words].concat());
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
    }
    let said = bench.fails(2, &["config", "recipes", "quikstart"]);
    assert!(said.contains("no recipe named 'quikstart': did you mean quickstart?"), "{said}");
}

#[test]
fn recipes_are_listed_and_printed_as_they_are() {
    let bench = Bench::without_images();
    let list = bench.ok(&["config", "recipes"]);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut files = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let line = list.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        assert!(line.ends_with('.'), "{line}");
        if name == "demo" {
            let text = fs::read_to_string(&path).unwrap();
            assert_eq!(bench.ok(&["config", "recipes", name]), text);
        }
        files += 1;
    }
    assert_eq!(list.lines().count(), files);
}

#[test]
fn shells_get_completions_of_every_verb() {
    let bench = Bench::without_images();
    for shell in ["bash", "zsh", "fish"] {
        let script = bench.ok(&["completions", shell]);
        for word in ["train", "inspect", "resume", "recipes", "completions"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    let said = bench.run(&["completions", "tcsh"]);
    assert_eq!(said.status.code(), Some(2), "{}", stderr(&said));
}
