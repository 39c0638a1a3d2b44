//! The small verbs of the real binary, in a temporary folder.
#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::Bench;
use serde_json::Value;

#[test]
fn synthetic_images_are_written_and_checked() {
    let bench = Bench::without_images();
    let said = bench.ok(&["data", "synth", "set", "--count", "20", "--size", "16"]);
    assert!(said.starts_with("20 images of 10 classes in set/images"), "{said}");

    fs::write(bench.path("set/images/broken.jpg"), "not a picture").unwrap();
    let json = bench.ok(&["data", "check", "set/images", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(report["images"], 21);
    assert_eq!(report["formats"]["PNG"].as_u64().or(report["formats"]["png"].as_u64()), Some(20));
    assert_eq!(report["broken"].as_array().unwrap().len(), 1);
    assert!(report["broken"][0]["name"].as_str().unwrap().ends_with("broken.jpg"));

    let table = bench.ok(&["data", "check", "set/images"]);
    assert!(table.contains("broken.jpg: not an image"), "{table}");
    let seen: Value =
        serde_json::from_str(&bench.ok(&["inspect", "set/images", "--json"])).unwrap();
    assert_eq!((&seen["type"], &seen["count"]), (&"images".into(), &21.into()));

    let again = bench.fails(1, &["data", "synth", "set", "--count", "5"]);
    assert!(again.contains("not empty"), "{again}");
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
        (&["data", "check", "bad"], 1, "no image can be read"),
        (&["data", "synth", "x", "--size", "4"], 2, "--size: must be at least 16"),
        (&["inspect", "missing"], 1, "missing: no such file or folder"),
        (&["inspect", "w.safetensors"], 1, "w.safetensors"),
        (&["inspect", "empty", "--self-check"], 2, "simdino inspect env"),
        (&["report", "empty"], 1, "empty is not a run"),
        (&["report", "missing"], 1, "missing: no such folder"),
        (&["config", "check", "missing.yaml"], 2, "missing.yaml does not exist"),
        (
            &["embed", "--weights", "w.safetensors", "--data", "bad", "--out", "x.txt"],
            2,
            ".npy, .safetensors or .csv",
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
}
