//! Tests of images with other than three channels, from TIFF files to features, with the real
//! binary.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::Bench;
use serde_json::Value;

/// Side of the images, in pixels.
const SIDE: u16 = 40;

/// Returns an uncompressed TIFF file with `channels` values of 16 bits per pixel: a header, the
/// values, and a directory of nine tags (TIFF 6.0, section 2).
fn tiff(channels: u16, value: impl Fn(u16, u16, u16) -> u16) -> Vec<u8> {
    let bytes = u32::from(SIDE) * u32::from(SIDE) * u32::from(channels) * 2;
    let mut file = [&b"II*\0"[..], &(8 + bytes).to_le_bytes()].concat();
    for y in 0..SIDE {
        for x in 0..SIDE {
            (0..channels).for_each(|c| file.extend(value(x, y, c).to_le_bytes()));
        }
    }
    let (short, long) = (3_u16, 4_u16);
    // The bits per channel of up to two channels fit into the tag. More follow the directory.
    let directory_end = 8 + bytes + 2 + 9 * 12 + 4;
    let (bits, behind) = match channels {
        1 => (16, 0),
        2 => (16 | 16 << 16, 0),
        more => (directory_end, more),
    };
    let tags = [
        (256, short, 1, u32::from(SIDE)),
        (257, short, 1, u32::from(SIDE)),
        (258, short, u32::from(channels), bits),
        (259, short, 1, 1), // no compression
        (262, short, 1, 1), // black is zero
        (273, long, 1, 8),
        (277, short, 1, u32::from(channels)),
        (278, short, 1, u32::from(SIDE)),
        (279, long, 1, bytes),
    ];
    file.extend((tags.len() as u16).to_le_bytes());
    for (tag, kind, count, value) in tags {
        file.extend([&u16::to_le_bytes(tag)[..], &kind.to_le_bytes()].concat());
        file.extend([u32::to_le_bytes(count), u32::to_le_bytes(value)].concat());
    }
    file.extend([0; 4]);
    (0..behind).for_each(|_| file.extend(16_u16.to_le_bytes()));
    file
}

/// Writes 24 scenes of `channels` bands with values from 0 to 3000, in two classes.
fn scenes(dir: &Path, channels: u16) {
    for number in 0..24_u16 {
        let class = dir.join(if number % 2 == 0 { "field" } else { "water" });
        fs::create_dir_all(&class).unwrap();
        let value = |x: u16, y: u16, c: u16| {
            let wave = (x * (number % 5 + 1) + y * (number % 3 + 2) + 40 * c) % 100;
            wave * 20 + 1000 * (number % 2)
        };
        fs::write(class.join(format!("{number:02}.tif")), tiff(channels, value)).unwrap();
    }
}

/// Returns the overrides for images of `channels` bands, with the statistics of `data check
/// --stats`.
fn settings(bench: &Bench, channels: u16) -> Vec<String> {
    let channels = channels.to_string();
    let check = ["data", "check", "scenes", "--channels", &channels, "--value-range", "0:3000"];
    let lines = bench.ok(&[&check[..], &["--stats"]].concat());
    let list = |key: &str| {
        let line = lines.lines().find(|line| line.trim().starts_with(key)).unwrap();
        line.trim().strip_prefix(key).unwrap().replace(' ', "")
    };
    let mut overrides = vec![
        format!("data.value_range={}", list("value_range: ")),
        format!("augment.mean={}", list("mean: ")),
        format!("augment.std={}", list("std: ")),
        format!("model.in_channels={channels}"),
        "data.path=scenes".into(),
    ];
    let zero = ["saturation", "hue", "gray_prob"];
    overrides.extend(zero.map(|key| format!("augment.{key}=0")));
    overrides
}

#[test]
fn one_four_and_five_bands_are_trained_on_and_embedded() {
    for channels in [1, 4, 5] {
        let bench = Bench::without_images();
        scenes(&bench.path("scenes"), channels);
        let settings = settings(&bench, channels);
        let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
        let probe = ["probe.train_path=scenes", "probe.test_path=scenes", "probe.k=3"];
        let run = ["train", "tiny.yaml", "train.batch_size=8", "train.stop_after=3"];
        bench.ok(&[&run[..], &["train.checkpoint_every=1"], &settings, &probe].concat());
        let metrics = fs::read_to_string(bench.path("runs/tiny/metrics.jsonl")).unwrap();
        let last: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
        assert_eq!(last["step"], 3, "{last}");
        assert!(bench.path("runs/tiny/pictures/pca.png").is_file());
        assert_eq!(fs::read_to_string(bench.path("runs/tiny/bad_images.tsv")).ok(), None);

        // The weight file says how images are read, so no options are needed.
        let weights = ["--weights", "runs/tiny"];
        let said =
            bench.ok(&[&["embed"], &weights[..], &["--data", "scenes", "--out", "z.csv"]].concat());
        assert!(said.starts_with("wrote 24 x "), "{said}");
        let test =
            ["--train", "scenes", "--test", "scenes", "--k", "3", "--json", "--device", "cpu"];
        let table = bench.ok(&[&["eval", "knn"], &weights[..], &test].concat());
        let table: Value = serde_json::from_str(table.lines().last().unwrap()).unwrap();
        assert!(table["pixels"].as_f64().unwrap() > 0.9, "classes differ in brightness: {table}");

        let crops =
            [&["picture", "crops", "scenes", "--config", "tiny.yaml"][..], &settings].concat();
        bench.ok(&crops);
        let speed = ["bench", "data", "scenes", "--seconds", "0.1", "--config", "tiny.yaml"];
        bench.ok(&[&speed[..], &settings].concat());
    }
}

#[test]
fn what_does_not_fit_the_channels_is_said() {
    let bench = Bench::without_images();
    scenes(&bench.path("scenes"), 5);
    let message = bench.fails(2, &["train", "tiny.yaml", "model.in_channels=5"]);
    for part in [
        "augment.saturation: needs RGB images, which have 3 channels (got 5): set \
         augment.saturation, augment.hue, and augment.gray_prob to 0",
        "augment.mean: needs one value for each of the 5 channels (got 3); `simdino data check \
         --channels 5 --stats` prints them",
        "augment.std: needs one value for each of the 5",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    let settings = settings(&bench, 5);
    let mut settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let train = ["train", "tiny.yaml", "train.batch_size=8"];
    let wrong = [&train[..], &settings, &["data.value_range=[[0,1],[0,2]]"]].concat();
    let message = bench.fails(2, &wrong);
    assert!(
        message.contains(
            "data.value_range: needs one pair for all channels or one for each of the 5 channels"
        ),
        "{message}"
    );
    let wrong = [&train[..], &settings, &["data.value_range=[[3,3]]"]].concat();
    assert!(bench.fails(2, &wrong).contains("data.value_range: every pair needs low < high"));
    let wrong = [&train[..], &settings, &["data.source=synthetic"]].concat();
    assert!(
        bench
            .fails(2, &wrong)
            .contains("data.source: synthetic images are RGB, so model.in_channels must be 3")
    );
    // Images with another number of channels count as broken, with that reason.
    let four = tiff(4, |x, y, c| x + y + c);
    fs::write(bench.path("scenes/field/four.tif"), four).unwrap();
    let check = ["data", "check", "scenes", "--channels", "5"];
    let table = bench.ok(&check);
    assert!(table.contains("four.tif: tiff image with 4 channels (expected 5)"), "{table}");
    assert!(table.contains("2nd and 98th percentiles, for data.value_range"), "{table}");
    let json: Value = serde_json::from_str(&bench.ok(&[&check[..], &["--json"]].concat())).unwrap();
    let percentiles = json["value_percentiles"].as_array().unwrap();
    assert_eq!(percentiles.len(), 5);
    for pair in percentiles {
        let [low, high] = [0, 1].map(|i| pair[i].as_f64().unwrap());
        assert!((0.0..200.0).contains(&low) && (2700.0..3000.0).contains(&high), "{pair}");
    }
    settings.push("train.stop_after=4");
    bench.ok(&[&train[..], &settings].concat());
    let bad = fs::read_to_string(bench.path("runs/tiny/bad_images.tsv")).unwrap();
    assert!(bad.contains("four.tif") && bad.contains("4 channels"), "{bad}");
}
