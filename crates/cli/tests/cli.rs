//! Tests of the small commands, with the real binary.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::Bench;
use serde_json::Value;

#[test]
fn keys_are_explained() {
    let bench = Bench::without_images();
    let one = bench.ok(&["config", "keys", "train.stop_after"]);
    assert!(
        one.starts_with("train.stop_after\n") && one.contains("; may change on resume\n"),
        "{one}"
    );
    assert!(!bench.ok(&["config", "keys", "optim.base_lr"]).contains("may change"));
    let section = bench.ok(&["config", "keys", "train"]);
    assert!(section.contains("train.epochs\n") && !section.contains("optim."), "{section}");
    assert!(section.contains("    bf16: "), "{section}");
    let unknown = bench.fails(2, &["config", "keys", "train.epoch"]);
    assert_eq!(unknown, "simdino: unknown key 'train.epoch': did you mean 'train.epochs'?\n");
    let schema: serde_json::Value = serde_json::from_str(&bench.ok(&["config", "schema"])).unwrap();
    assert_eq!(schema["properties"]["run"]["properties"]["seed"]["type"], "integer");
}

#[test]
fn synthetic_images_are_written_and_checked() {
    let bench = Bench::without_images();
    let said = bench.ok(&["data", "synth", "set", "--count", "20", "--size", "16"]);
    assert!(said.starts_with("wrote 20 images of 10 classes to set/images"), "{said}");

    fs::write(bench.path("set/images/broken.jpg"), "not a picture").unwrap();
    let json = bench.ok(&["data", "check", "set/images", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["images"], 21);
    assert_eq!(report["formats"]["PNG"].as_u64().or(report["formats"]["png"].as_u64()), Some(20));
    assert_eq!(report["broken"].as_array().unwrap().len(), 1);
    assert!(report["broken"][0]["name"].as_str().unwrap().ends_with("broken.jpg"));

    let table = bench.ok(&["data", "check", "set/images"]);
    assert!(table.contains("broken.jpg: not an image"), "{table}");
    assert!(table.contains("images        21, 20 of them readable\n"), "{table}");
    // Control characters in the name of a file do not reach the terminal.
    fs::write(bench.path("set/images/\u{1b}[31m\n.jpg"), "").unwrap();
    let table = bench.ok(&["data", "check", "set/images"]);
    assert!(table.contains(r"\u{1b}[31m\n.jpg: ") && !table.contains('\u{1b}'), "{table}");
    let said = bench.fails(1, &["data", "pack", "set/images/missing", "shards"]);
    assert!(!said.contains("--skip-unreadable"), "{said}");
    fs::remove_file(bench.path("set/images/\u{1b}[31m\n.jpg")).unwrap();
    std::os::unix::fs::symlink("nowhere", bench.path("set/images/link.jpg")).unwrap();
    let said = bench.fails(1, &["data", "pack", "set/images", "shards"]);
    assert!(said.contains("link.jpg") && said.contains("; use --skip-unreadable"), "{said}");
    fs::remove_file(bench.path("set/images/link.jpg")).unwrap();

    // Overrides also work without a config file.
    let speed = ["bench", "data", "set/images", "--seconds", "0.1", "augment.preset=dinov2"];
    assert!(bench.ok(&speed).contains("pipeline"));
    let said = bench.fails(2, &["bench", "data", "set/images", "augment.presett=dinov2"]);
    assert!(said.contains("did you mean 'augment.preset'?"), "{said}");
    let crops = ["picture", "crops", "set/images", "augment.local_crops_number=3"];
    assert!(bench.ok(&crops).contains("3 local crops"));
    let seen: Value =
        serde_json::from_str(&bench.ok(&["inspect", "set/images", "--json"])).unwrap();
    assert_eq!((&seen["type"], &seen["count"]), (&"images".into(), &21.into()));

    let again = bench.fails(1, &["data", "synth", "set", "--count", "5"]);
    assert!(again.contains("not empty"), "{again}");
}

#[test]
fn the_largest_of_many_classes_are_named() {
    let bench = Bench::without_images();
    for class in 0..1000_usize {
        let folder = bench.path(&format!("set/c{class:03}"));
        std::fs::create_dir_all(&folder).unwrap();
        // The last three classes are the largest, c999 with four images.
        for number in 0..1 + class.saturating_sub(996) {
            std::fs::write(folder.join(format!("{number}.png")), "x").unwrap();
        }
    }
    image::RgbImage::new(8, 8).save(bench.path("set/c000/good.bmp")).unwrap();
    let table = bench.ok(&["data", "check", "set"]);
    let row = table.lines().find(|line| line.starts_with("labels")).unwrap();
    let start = "1000 classes; images of each: c999: 4, c998: 3, c000: 2, c997: 2, c001: 1,";
    assert!(row.contains(start) && row.ends_with("c016: 1, and 980 more"), "{row}");
}

#[test]
fn bad_input_is_one_sentence() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("empty")).unwrap();
    fs::create_dir(bench.path("bad")).unwrap();
    fs::write(bench.path("bad/a.jpg"), "").unwrap();
    fs::write(bench.path("w.safetensors"), "nonsense").unwrap();
    for (args, code, expect) in [
        (&["data", "check", "missing"][..], 1, "missing"),
        (&["data", "check", "empty"], 1, "empty"),
        (&["data", "check", "bad"], 1, "none of the images can be read"),
        (&["data", "synth", "x", "--size", "4"], 2, "--size: must be at least 16"),
        (&["data", "synth", "x", "--size", "1000000"], 2, "--size: must be at most 4096"),
        (&["inspect", "missing"], 1, "missing: no such file or folder"),
        (&["inspect", "w.safetensors"], 1, "w.safetensors"),
        (&["inspect", "empty", "--self-check"], 2, "simdino inspect env"),
        (&["report", "empty"], 1, "empty is not a run"),
        (&["report", "missing"], 1, "missing: no such folder"),
        (&["config", "check", "missing.yaml"], 2, "missing.yaml does not exist"),
        (
            &["embed", "--weights", "w.safetensors", "--data", "bad", "--out", "x.txt"],
            2,
            "must end in .npy, .safetensors, or .csv",
        ),
        (
            &["embed", "--weights", "w.safetensors", "--data", "bad", "--out", "x.npy"],
            1,
            "w.safetensors",
        ),
    ] {
        let said = bench.fails(code, args);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with("simdino: ") && said.contains(expect), "{args:?}: {said}");
    }
}

#[test]
fn the_machine_checks_itself() {
    let bench = Bench::without_images();
    let json = bench.ok(&["inspect", "env", "--self-check", "--json"]);
    let machine: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(machine["passed"], true, "{json}");
    assert_eq!(machine["devices"][0]["device"], "cpu");
    assert!(machine["libtorch"].as_str().unwrap().starts_with("2."), "{json}");
    assert!(machine["self_check"].as_array().unwrap().len() >= 7);
}

#[test]
fn a_report_is_one_file() {
    let bench = Bench::without_images();
    let run = bench.path("mine");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("metrics.jsonl"), "{\"step\":1,\"epoch\":1,\"loss/total\":-0.5}\n").unwrap();
    assert_eq!(bench.ok(&["report", "mine"]), "mine/report.html\n");
    let html = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(html.contains("<h1>mine</h1>") && html.contains("<svg"), "{html}");
    bench.ok(&["report", "mine", "--out", "new/page.html"]);
    let said = bench.fails(2, &["report", "mine", "--out", "mine/metrics.jsonl"]);
    assert!(said.contains("must end in .html"), "{said}");
    assert!(fs::read_to_string(run.join("metrics.jsonl")).unwrap().starts_with('{'));
    // A damaged part is named, and the page is written without it.
    fs::write(run.join("config.resolved.yaml"), "run: {name: mine}\n").unwrap();
    fs::write(run.join("metrics.jsonl"), "no metrics\n").unwrap();
    let output = bench.run(&["report", "mine"]);
    let said = String::from_utf8(output.stderr).unwrap();
    let expected =
        "simdino: warning: mine: metrics.jsonl is damaged: none of its lines holds metrics";
    assert!(output.status.success() && said.trim_end() == expected, "{said}");
    fs::create_dir(bench.path("grid")).unwrap();
    fs::write(bench.path("grid/study.html"), "").unwrap();
    let said = bench.fails(1, &["report", "grid"]);
    assert!(said.contains("it is a study, and its page is grid/study.html"), "{said}");
}

#[test]
fn every_command_says_the_version_of_the_program() {
    let bench = Bench::without_images();
    for args in [&["--version"][..], &["train", "--version"], &["data", "pack", "-V"]] {
        assert_eq!(bench.ok(args), format!("simdino {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn images_without_the_wanted_channels_are_explained() {
    let bench = Bench::without_images();
    fs::create_dir(bench.path("set")).unwrap();
    image::RgbImage::new(20, 20).save(bench.path("set/a.png")).unwrap();
    let output = bench.run(&["data", "check", "set", "--channels", "4"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(!table.contains("width") && !table.contains("channel mean"), "{table}");
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "none of the images can be read; the first is a.png: png image with 3 channels";
    assert!(said.contains(expected), "{said}");
    let table = bench.ok(&["data", "check", "set"]);
    assert!(table.contains("formats       png: 1\n") && table.contains("0 groups"), "{table}");
    assert!(bench.ok(&["data", "pack", "set", "p"]).starts_with("p: 1 image in 1 shard; "));
    assert_eq!(bench.ok(&["data", "index", "p"]), "p: 1 shard, 1 image indexed\n");
}

#[test]
fn packed_images_are_checked_like_the_folder() {
    let bench = Bench::new();
    let text = bench.ok(&["data", "pack", "images/images", "packed", "--shard-images", "30"]);
    assert!(text.contains("80 images in 3 shards"), "{text}");
    let again = bench.ok(&["data", "pack", "images/images", "packed", "--shard-images", "30"]);
    assert!(again.contains("3 of them written earlier"), "{again}");
    let field = |path: &str, name: &str| {
        let text = bench.ok(&["data", "check", path]);
        text.lines().find(|line| line.starts_with(name)).unwrap().to_owned()
    };
    for name in ["images", "channel mean", "labels"] {
        assert_eq!(field("packed", name), field("images/images", name));
    }
    fails(&bench, 1, &["data", "pack", "images/images", "images"], &["images", "not empty"]);
    fails(&bench, 2, &["data", "pack", "a", "b", "--shard-images", "0"], &["--shard-images"]);
    let shard = bench.path("packed/000001.tar");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 512]).unwrap();
    fails(&bench, 1, &["data", "check", "packed"], &["000001.tar has changed", "data index"]);
}

#[test]
fn crops_are_drawn_for_one_image_or_a_folder() {
    let bench = Bench::new();
    let first = std::fs::read_dir(bench.path("images/images")).unwrap().next().unwrap().unwrap();
    let first = first.path().to_string_lossy().into_owned();
    let said = bench.ok(&["picture", "crops", &first, "--config", "tiny.yaml", "-o", "one.png"]);
    assert!(said.contains("4 rows"), "{said}");
    bench.ok(&["picture", "crops", "images/images", "--config", "tiny.yaml", "--rows", "2"]);
    let row = bench.ok(&["picture", "crops", &first, "--rows", "1", "-o", "new/folder/a.png"]);
    assert!(
        row.starts_with("new/folder/a.png: 1 row; ") && bench.path("new/folder/a.png").is_file()
    );
    let size = |name: &str| image::image_dimensions(bench.path(name)).unwrap();
    let (one, two) = (size("one.png"), size("crops.png"));
    assert!(one.0 == two.0 && one.1 > two.1, "{one:?} {two:?}");
    fails(&bench, 2, &["picture", "crops", &first, "-o", "a.jpg"], &["--out", ".png"]);
    fails(&bench, 1, &["picture", "crops", "nothing.png"], &["nothing.png", "no such file"]);
    std::fs::write(bench.path("bad.png"), "text").unwrap();
    fails(&bench, 1, &["picture", "crops", "bad.png"], &["bad.png", "not an image"]);
}

#[test]
fn sources_are_mixed_by_weight() {
    let bench = Bench::new();
    bench.ok(&["data", "synth", "more", "--count", "20", "--size", "24", "--seed", "1"]);
    bench.ok(&["data", "pack", "more/images", "shards", "--shard-images", "12"]);
    let tiny = fs::read_to_string(bench.path("tiny.yaml")).unwrap();
    let with = |mix: &str| {
        let data = format!("data: {{workers: 1, mix: [{mix}]}}");
        let config = tiny.replace("data: {path: images/images, workers: 1}", &data);
        assert_ne!(config, tiny);
        fs::write(bench.path("mix.yaml"), config).unwrap();
    };
    let run = ["train", "mix.yaml", "train.stop_after=2", "train.checkpoint_every=1"];
    with("{path: images/images, weight: 3}, {path: shards, weight: 1}");
    let plan = bench.ok(&["train", "mix.yaml", "--dry-run"]);
    assert!(plan.contains("images/images + shards") && plan.contains("100"), "{plan}");
    bench.ok(&run);
    // Another weight changes the order of images, so the run cannot continue.
    with("{path: images/images, weight: 2}, {path: shards, weight: 1}");
    let message = bench.fails(1, &["train", "mix.yaml", "--resume", "auto"]);
    assert!(message.contains("the images of data.path have changed"), "{message}");
    with("{path: images/images, weight: 3}, {path: shards}");
    fails(&bench, 2, &run, &["data.mix", "set the weight of all sources or of none"]);
    with("{path: images/images}, {path: nowhere}");
    fails(
        &bench,
        1,
        &["train", "mix.yaml", "run.name=other"],
        &["nowhere", "no such file or folder"],
    );
}

#[test]
fn the_coding_rate_is_studied_on_made_up_and_on_saved_features() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=1"]);
    let weights = "runs/tiny/weights/teacher.safetensors";
    bench.ok(&["embed", "--weights", weights, "--data", "images/images", "--out", "z.npy"]);
    let read =
        |args: &[&str]| -> serde_json::Value { serde_json::from_str(&bench.ok(args)).unwrap() };
    let rate = read(&["analyze", "coding-rate", "z.npy", "--json", "--plot", "z.svg"]);
    let number = |key: &str| rate[key].as_f64().unwrap();
    assert!(number("floor") <= number("rate") && number("rate") <= number("ceiling"), "{rate}");
    assert!(number("gradient_norm") <= number("bound") && number("n") == 80.0, "{rate}");
    let spectrum: f64 =
        rate["spectrum"].as_array().unwrap().iter().map(|share| share.as_f64().unwrap()).sum();
    assert!((spectrum - 1.0).abs() < 1e-9, "{spectrum}");
    // Of the 80 saved rows, 16 and 64 are measured, and all of them once.
    let sizes = ["--n", "16,100,64,200", "--d", "8", "--eps", "0.5"];
    let more = ["--features", "z.npy", "--plot", "figures/scale.svg", "--json"];
    let rows = read(&[&["analyze", "gradient-scale"][..], &sizes, &more].concat());
    let rows = rows.as_array().unwrap();
    assert_eq!(rows.len(), 4 * 3 + 3);
    for row in rows {
        assert!(row["gamma_theorem_times_norm"].as_f64().unwrap() <= 0.5 + 1e-9, "{row}");
    }
    for figure in ["z.svg", "figures/scale.svg"] {
        let svg = fs::read_to_string(bench.path(figure)).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("class=\"line s1\""), "{svg}");
    }
    fails(&bench, 2, &["analyze", "coding-rate", "z.npy", "--plot", "z.png"], &["--plot", ".svg"]);
    fails(&bench, 1, &["analyze", "coding-rate", "no.npy"], &["no.npy: no such file"]);
}

fn fails(bench: &Bench, code: i32, args: &[&str], words: &[&str]) {
    let message = bench.fails(code, args);
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}
