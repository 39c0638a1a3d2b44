//! Tests of `simdino reproduce` with the real binary: the commands of rows, and a table of the
//! numbers of a tiny network.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;
use std::os::unix::fs::symlink;

use common::{Bench, stderr};
use serde_json::Value;

/// Returns a bench with a trained run, and with its images in the layout of ImageNet in the folder
/// `inet`.
fn bench() -> Bench {
    let bench = Bench::new();
    let probe = ["probe.train_path=images/images", "probe.test_path=images/images"];
    let train = ["train", "tiny.yaml", "train.epochs=10", "probe.every_epochs=10"];
    bench.ok(&[&train[..], &probe].concat());
    fs::create_dir(bench.path("inet")).unwrap();
    for set in ["train", "val"] {
        symlink(bench.path("images/images"), bench.path(&format!("inet/{set}"))).unwrap();
    }
    bench
}

fn lines(bench: &Bench) -> Vec<Value> {
    let text = fs::read_to_string(bench.path("reproduced/reproduce.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    value["lines"].as_array().unwrap().clone()
}

const ROW: [&str; 7] =
    ["reproduce", "--row", "table1/simdino_vitb16", "--measure", "knn", "--device", "cpu"];

#[test]
fn rows_and_their_commands_are_printed() {
    let bench = Bench::without_images();
    let list = bench.ok(&["reproduce"]);
    for name in ["algorithm2", "figure5", "table1/simdino_vitb16", "table4", "table8/"] {
        assert!(list.contains(name), "{name}: {list}");
    }
    let row = bench.ok(&["reproduce", "--row", "table1/simdino_vitb16"]);
    let knn = "simdino eval knn --weights runs/simdino_vitb16_in1k --train IMAGENET/train --test IMAGENET/val";
    assert!(row.contains(knn), "{row}");
    assert!(row.contains("simdino train simdino_vitb16_in1k data.path=IMAGENET/train"), "{row}");
    assert!(row.contains("| 74.9 [1] | 69.52 [2] | - |"), "{row}");
    let json: Value =
        serde_json::from_str(&bench.ok(&["reproduce", "--row", "table6", "--json"])).unwrap();
    assert_eq!(json["rows"].as_array().unwrap().len(), 3);
    assert!(json["rows"][0]["lines"][0]["paper"].is_null(), "not invented: {json}");
    fs::create_dir(bench.path("my images")).unwrap();
    let row = bench.ok(&["reproduce", "--row", "table2/dino_vitb8", "--data", "coco=my images"]);
    assert!(row.contains("--images 'my images/val2017'"), "{row}");
    for (args, says) in [
        (["--row", "table9"], "algorithm2, table1"),
        (["--measure", "accuracy"], "the measures are ade20k, curve"),
        (["--data", "inet=here"], "imagenet=FOLDER"),
    ] {
        let said = bench.fails(2, &[&["reproduce"][..], &args].concat());
        assert!(said.contains(says), "{said}");
    }
    let said = bench.fails(1, &["reproduce", "--data", "imagenet=nowhere"]);
    assert!(said.contains("nowhere: no such folder"), "{said}");
}

#[test]
fn what_is_at_hand_is_measured_once() {
    let bench = bench();
    let args = [&ROW[..], &["--data", "imagenet=inet", "--weights", "runs/tiny"]].concat();
    let output = bench.run(&args);
    let (said, table) = (stderr(&output), String::from_utf8(output.stdout).unwrap());
    assert!(output.status.success(), "{said}");
    assert!(said.contains("simdino eval knn --weights runs/tiny --train inet/train"), "{said}");
    let kept = fs::read_to_string(bench.path("reproduced/reproduce.md")).unwrap();
    assert_eq!(table, kept);
    let line = &lines(&bench)[0];
    assert!(line["here"].as_f64().unwrap() > 10.0, "{line}");
    let verdict = line["verdict"].as_str().unwrap();
    // A tiny network on other images has a value, but it is not compared with the paper.
    assert!(verdict.contains("vit_nano with patch size 8, not a vit_base"), "{verdict}");
    assert!(verdict.contains("the run was trained with augment."), "{verdict}");
    assert!(verdict.contains("80 test images instead of 50000"), "{verdict}");

    let again = bench.run(&args);
    assert!(!stderr(&again).contains("simdino eval"), "measured twice: {}", stderr(&again));
    assert_eq!(String::from_utf8(again.stdout).unwrap(), table);
    let forced = bench.run(&[&args[..], &["--again"]].concat());
    assert!(stderr(&forced).contains("simdino eval knn"), "{}", stderr(&forced));
    // Other weights at the same path are measured again.
    fs::remove_file(bench.path("runs/tiny/weights/teacher.safetensors")).unwrap();
    let first = bench.path("runs/tiny/checkpoints");
    let mut steps: Vec<_> =
        fs::read_dir(first).unwrap().map(|entry| entry.unwrap().path()).collect();
    steps.sort();
    let older = steps.iter().find(|path| path.join("teacher.safetensors").exists()).unwrap();
    fs::copy(
        older.join("teacher.safetensors"),
        bench.path("runs/tiny/weights/teacher.safetensors"),
    )
    .unwrap();
    let other = bench.run(&args);
    assert!(stderr(&other).contains("simdino eval knn"), "{}", stderr(&other));

    fs::write(bench.path("reproduced/reproduce.json"), "{").unwrap();
    let said = bench.fails(1, &args);
    assert!(said.contains("reproduce.json: the file is damaged; delete it"), "{said}");
}

#[test]
fn curves_released_weights_and_failures_have_lines() {
    let bench = bench();
    let curve = ["reproduce", "--row", "figure2/simdino_vitb16", "--weights", "runs/tiny"];
    bench.ok(&curve);
    let found = lines(&bench);
    assert_eq!((found.len(), found[0]["metric"].as_str()), (10, Some("10")));
    assert!(found[0]["here"].is_number() && found[1]["here"].is_null(), "{found:?}");
    assert!(found[0]["verdict"].as_str().unwrap().contains("80 test images"), "{found:?}");

    fs::create_dir(bench.path("theirs")).unwrap();
    let weights = bench.path("runs/tiny/weights/teacher.safetensors");
    fs::copy(&weights, bench.path("theirs/SimDINO_ViT-B16.safetensors")).unwrap();
    fs::write(bench.path("theirs/dino_vitb16.pth"), "no weights").unwrap();
    fs::write(bench.path("theirs/README.md"), "SimDINO ViT-B16").unwrap();
    let args = ["reproduce", "--row", "table1", "--measure", "knn", "--released", "theirs"];
    let output = bench.run(&[&args[..], &["--device", "cpu", "--data", "imagenet=inet"]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let found = lines(&bench);
    let of = |row: &str| found.iter().find(|line| line["row"] == row).unwrap();
    assert!(of("table1/simdino_vitb16")["here"].is_number());
    let failed = of("table1/dino_vitb16")["verdict"].as_str().unwrap();
    assert!(failed.contains("failed: ") && failed.contains("dino_vitb16.pth"), "{failed}");
    assert_eq!(of("table1/simdinov2_vitl16")["verdict"], "no weights");
    let missing =
        bench.ok(&["reproduce", "--row", "table2/simdino_vitb16", "--weights", "runs/tiny"]);
    assert!(missing.contains("needs --data coco=FOLDER"), "{missing}");
    // The table has the rows of all calls in the order of the paper, and a call without the data
    // for a row keeps its earlier value.
    let found = lines(&bench);
    let of = |row: &str| found.iter().find(|line| line["row"] == row).unwrap();
    assert!(of("figure2/simdino_vitb16")["here"].is_number(), "{found:?}");
    assert!(of("table2/simdino_vitb16")["here"].is_null());
    bench.ok(&["reproduce", "--row", "table1/simdino_vitb16", "--weights", "runs/tiny"]);
    let found = lines(&bench);
    let of = |row: &str| found.iter().find(|line| line["row"] == row).unwrap();
    assert!(of("table1/simdino_vitb16")["here"].is_number(), "{found:?}");
    let page = fs::read_to_string(bench.path("reproduced/reproduce.md")).unwrap();
    let places =
        ["| table1/simdino_vitb16 |", "| figure2/simdino_vitb16 |", "| table2/simdino_vitb16 |"];
    let places = places.map(|row| page.find(row).unwrap());
    assert!(places.is_sorted(), "{page}");
    let said = bench.fails(2, &["reproduce", "--row", "table1", "--weights", "runs/tiny"]);
    assert!(said.contains("NETWORK=PATH"), "{said}");
}
