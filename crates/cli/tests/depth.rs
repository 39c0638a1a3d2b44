//! Tests of `eval depth`, with the real binary on drawn scenes.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;

use common::{Bench, last_record, stderr};
use image::{ImageBuffer, Luma, Rgb, RgbImage};
use serde_json::Value;

const SETS: [&str; 8] = [
    "--images",
    "train/images",
    "--depth",
    "train/depth",
    "--test-images",
    "test/images",
    "--test-depth",
    "test/depth",
];

/// Returns a bench with a trained run, and with scenes that get brighter and nearer toward the
/// bottom.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml"]);
    for (set, count) in [("train", 5), ("test", 2)] {
        let [images, maps] = ["images", "depth"].map(|kind| bench.path(&format!("{set}/{kind}")));
        fs::create_dir_all(&images).unwrap();
        fs::create_dir_all(&maps).unwrap();
        for i in 0..count {
            let depth = |y: u32| 6.0 - f64::from(y) / (12.0 + f64::from(i));
            let bright = |y: u32| (255.0 - 40.0 * depth(y)) as u8;
            RgbImage::from_fn(44, 40, |x, y| Rgb([bright(y), (x % 9) as u8, 90]))
                .save(images.join(format!("{i}.png")))
                .unwrap();
            let value = |x, y| Luma([if x < 2 { 0 } else { (256.0 * depth(y)) as u16 }]);
            ImageBuffer::<Luma<u16>, Vec<u16>>::from_fn(44, 40, value)
                .save(maps.join(format!("{i}.png")))
                .unwrap();
        }
    }
    bench
}

fn eval<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let common = ["eval", "depth", "--weights", "runs/tiny", "--crop", "32", "--divisor", "256"];
    [&common[..], &SETS, more].concat()
}

#[test]
fn depth_is_measured_and_kept() {
    let bench = bench();
    let short = ["--iterations", "20", "--batch", "2", "--layers", "four"];
    let record = last_record(&bench.ok(&eval(&[&short[..], &["--json"]].concat())));
    assert_eq!(record["main"], "d1");
    for column in
        [&record["metrics"], &record["baselines"]["untrained"], &record["baselines"]["mean map"]]
    {
        assert!(column["rmse (m)"].is_number() && column["silog"].is_number(), "{record}");
    }
    assert_eq!(
        (record["settings"]["layers"].as_str(), record["data"][0]["images"].as_u64()),
        (Some("four"), Some(5))
    );
    // The head is trained only once, and errors in meters are not shown as percentages.
    let again = bench.run(&eval(&short));
    assert!(stderr(&again).contains("resumed at iteration 20"), "{}", stderr(&again));
    let text = String::from_utf8(again.stdout).unwrap();
    let line = text.lines().find(|line| line.starts_with("rmse (m)")).unwrap();
    assert!(!line.contains('%') && text.contains("mean map"), "{text}");
    let results = fs::read_to_string(bench.path("runs/tiny/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["evaluations"].as_array().unwrap().len(), 1, "{results}");
    // An evaluation on fewer images is a separate record.
    bench.ok(&eval(&[&short[..], &["--skip-untrained", "--max-test", "1"]].concat()));
    let results = fs::read_to_string(bench.path("runs/tiny/results.json")).unwrap();
    let results: Value = serde_json::from_str(&results).unwrap();
    let of = |i: usize| &results["evaluations"][i];
    assert_eq!(
        (&of(0)["metrics"], &of(1)["settings"]["max_test"]),
        (&record["metrics"], &1.into())
    );
    bench.ok(&["report", "runs/tiny"]);
    let page = fs::read_to_string(bench.path("runs/tiny/report.html")).unwrap();
    let rmse = record["metrics"]["rmse (m)"].as_f64().unwrap();
    assert!(page.contains(&format!("rmse (m) {rmse:.3}")), "{rmse}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let bench = bench();
    let short = ["--iterations", "2", "--batch", "1", "--skip-untrained"];
    let fails = |code, more: &[&str], word: &str| {
        let said = bench.fails(code, &eval(&[&short[..], more].concat()));
        assert!(said.contains(word), "'{word}' is missing in: {said}");
    };
    bench.lacks(&eval(&short), "--resize");
    let odd: Vec<&str> =
        eval(&short).into_iter().map(|arg| if arg == "32" { "41" } else { arg }).collect();
    let said = bench.fails(2, &odd);
    assert!(
        said.contains(
            "--crop 41: must be a multiple of the patch size of 8 pixels, such as 40 or 48"
        ),
        "{said}"
    );
    fails(2, &["--max-depth", "0"], "--max-depth: must be greater than 0");
    fails(1, &["--max-depth", "0.0001"], "max_depth");
    fails(1, &["--max-depth", "0.01"], "divisor");
    fails(2, &["--scored", "nyu"], "--scored: the NYU crop is defined for images of 640x480");
    // A single broken map is left out.
    fs::write(bench.path("train/depth/1.png"), "no image").unwrap();
    let output = bench.run(&eval(&[&short[..], &["--json"]].concat()));
    assert!(output.status.success(), "{}", stderr(&output));
    let record = last_record(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(record["data"][0]["images"], 4, "{record}");
    assert!(record["notes"][0].as_str().unwrap().contains("1 of the training images"), "{record}");
}
