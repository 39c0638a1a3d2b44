//! Tests of `eval video` and `picture video`, with the real binary on small videos.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::fs;

use common::{Bench, last_record, stderr};
use image::codecs::webp::WebPDecoder;
use image::{AnimationDecoder, GrayImage, Luma, Rgb, RgbImage};
use serde_json::Value;

const FRAMES: u32 = 6;

/// Draws a bright square that moves over a dark background: the frames into `frames/NAME`, and the
/// annotations into `truth/NAME`.
fn draw(bench: &Bench, name: &str) {
    for folder in ["frames", "truth"] {
        fs::create_dir_all(bench.path(&format!("{folder}/{name}"))).unwrap();
    }
    for i in 0..FRAMES {
        let inside =
            |x: u32, y: u32| (20 + 4 * i..60 + 4 * i).contains(&x) && (10..50).contains(&y);
        let color = |x, y| if inside(x, y) { [240, 40, 30] } else { [20, (x / 2) as u8, 150] };
        let frame = RgbImage::from_fn(120, 80, |x, y| Rgb(color(x, y)));
        frame.save(bench.path(&format!("frames/{name}/{i:05}.png"))).unwrap();
        let truth = GrayImage::from_fn(120, 80, |x, y| Luma([u8::from(inside(x, y))]));
        truth.save(bench.path(&format!("truth/{name}/{i:05}.png"))).unwrap();
    }
}

const ARGS: [&str; 10] = [
    "eval",
    "video",
    "--weights",
    "runs/tiny",
    "--frames",
    "frames",
    "--truth",
    "truth",
    "--side",
    "64",
];

#[test]
fn objects_are_followed_and_a_broken_frame_costs_its_sequence_alone() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=1"]);
    draw(&bench, "slide");
    draw(&bench, "torn");
    fs::write(bench.path("frames/torn/00003.png"), "x").unwrap();
    // Folders without annotations are not sequences.
    fs::create_dir_all(bench.path("truth/.hidden")).unwrap();
    fs::create_dir_all(bench.path("truth/empty")).unwrap();
    let output = bench.run(&[&ARGS[..], &["--results", "followed", "--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stderr(&output).contains("skipped sequence torn: "), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let record = last_record(&text);
    assert_eq!(record["main"], "j&f");
    assert!(record["baselines"]["untrained"]["j&f"].is_number(), "{record}");
    let images = [&record["data"][0]["images"], &record["data"][1]["images"]];
    assert_eq!((&record["settings"]["sequences"], images), (&1.into(), [&FRAMES.into(); 2]));
    let score = record["metrics"]["j&f"].as_f64().unwrap();
    assert!(score > 0.4 && score <= 1.0, "{score}");

    // `score davis` gives the same score for the written files.
    fs::remove_dir_all(bench.path("truth/torn")).unwrap();
    let args = ["score", "davis", "--truth", "truth", "--results", "followed", "--json"];
    let again: Value = serde_json::from_str(bench.ok(&args).lines().last().unwrap()).unwrap();
    let again = again["scores"]["j_and_f"].as_f64().unwrap();
    assert!((again - score).abs() < 1e-9, "{again} {score}");
    assert_eq!(fs::read_dir(bench.path("followed/slide")).unwrap().count() as u32, FRAMES);
}

#[test]
fn a_video_is_drawn_as_a_strip_or_an_animation() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=1"]);
    draw(&bench, "slide");
    // If 255 is the only label, it is an object.
    let mut first = image::open(bench.path("truth/slide/00000.png")).unwrap().to_luma8();
    first.pixels_mut().for_each(|pixel| pixel.0[0] *= 255);
    first.save(bench.path("first.png")).unwrap();
    let common = ["picture", "video", "frames/slide", "--first", "first.png", "-w", "runs/tiny"];
    let drawn = |more: &[&str]| {
        bench.ok(&[&common[..], &["-w", "runs/tiny", "--side", "64"], more].concat())
    };
    let said = drawn(&["--shown", "3"]);
    assert!(said.contains("video.png: 3 of 6 frames"), "{said}");
    let strip = image::open(bench.path("video.png")).unwrap().to_rgb8();
    // Frames of 120 x 80 are drawn as 360 x 240: a row of frames, and a labeled row for each
    // network.
    assert_eq!(strip.dimensions(), (3 * 364 + 4, 244 + 2 * (22 + 244) + 4));
    let (plain, tinted) =
        (strip.get_pixel(4 + 120, 4 + 90), strip.get_pixel(4 + 120, 4 + 244 + 22 + 90));
    assert_eq!((plain.0, tinted.0), ([240, 40, 30], [235, 50, 40]));

    let said = drawn(&["--untrained", "--out", "video.webp", "--fps", "10"]);
    assert!(said.contains("video.webp: 6 of 6 frames"), "{said}");
    let file = std::io::BufReader::new(fs::File::open(bench.path("video.webp")).unwrap());
    let frames = WebPDecoder::new(file).unwrap().into_frames().collect_frames().unwrap();
    assert_eq!(frames.len(), 6);
    assert_eq!(frames[0].buffer().dimensions(), (364 + 4, 3 * (22 + 244) + 4));
    assert_ne!(frames[0].buffer(), frames[5].buffer());

    let refused = |code, first: &str, more: &[&str], word: &str| {
        let arguments = ["picture", "video", "frames/slide", "-w", "runs/tiny", "--first", first];
        let said = bench.fails(code, &[&arguments[..], more].concat());
        assert!(said.contains(word), "{said}");
    };
    refused(2, "first.png", &["--out", "video.gif"], ".webp");
    refused(2, "first.png", &["--shown", "0"], "--shown");
    refused(1, "frames/slide/00000.png", &[], "00000.png");
    GrayImage::new(120, 80).save(bench.path("first.png")).unwrap();
    refused(1, "first.png", &[], "first.png: all pixels are 0");
}

#[test]
fn what_does_not_fit_is_a_sentence() {
    let bench = Bench::new();
    bench.ok(&["train", "tiny.yaml", "train.stop_after=1"]);
    draw(&bench, "slide");
    let said = bench.fails(1, &[&ARGS[..8], &["--side", "4"]].concat());
    assert!(said.contains("side") && said.contains("too small for patches of 8"), "{said}");
    bench.lacks(&ARGS, "--resize");
    let annotate = |width, id| {
        let first = GrayImage::from_pixel(width, 80, Luma([id]));
        first.save(bench.path("truth/slide/00000.png")).unwrap();
    };
    // In DAVIS 2016, 255 is the object, but in DAVIS 2017, it marks ignored pixels.
    annotate(120, 255);
    let said = bench.fails(1, &ARGS);
    assert!(
        said.contains("00000.png: contains no object") && said.contains("--single-object"),
        "{said}"
    );
    bench.ok(&[&ARGS[..], &["--single-object"]].concat());
    annotate(60, 1);
    let said = bench.fails(1, &ARGS);
    assert!(said.contains("has 120 x 80 pixels, but the first annotation has 60 x 80"), "{said}");
    // What the score needs is checked before anything is tracked.
    annotate(120, 1);
    fs::copy(bench.path("truth/slide/00001.png"), bench.path("truth/slide/alone.png")).unwrap();
    let said = bench.fails(1, &ARGS);
    assert!(said.contains("alone.png: annotates no frame in frames/slide"), "{said}");
    fs::remove_file(bench.path("truth/slide/alone.png")).unwrap();
    (2..FRAMES)
        .for_each(|i| fs::remove_file(bench.path(&format!("truth/slide/{i:05}.png"))).unwrap());
    let said = bench.fails(1, &ARGS);
    assert!(said.contains("truth/slide has 2 frames"), "{said}");
    fs::remove_dir_all(bench.path("frames/slide")).unwrap();
    let said = bench.fails(1, &ARGS);
    assert!(said.contains("no such folder of frames"), "{said}");
}
