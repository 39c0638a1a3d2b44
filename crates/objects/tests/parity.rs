//! Compares results with plain implementations in Python, from `tools/parity/maskcut.py`.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

use std::path::Path;

use ndarray::Array2;
use objects::propagate::one_hot;
use objects::resize::{Filter, resize};
use objects::{
    Affinity, Crf, CrfOptions, Grid, MaskCutOptions, PropagateOptions, Propagator, maskcut, ncut,
};
use serde_json::Value;

/// Returns numbers in `[-1, 1)` that depend only on `which` and their index, as in the script.
fn hashed(which: u64, count: usize) -> Vec<f64> {
    let mixed = |i: u64| {
        let mut z = i.wrapping_add((which << 32) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..count as u64).map(|i| (mixed(i) >> 11) as f64 / (1u64 << 52) as f64 - 1.0).collect()
}

fn fixture(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

fn grid_of(value: &Value) -> Grid {
    Grid::new(number(&value[0]), number(&value[1]))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

/// Returns the scene that the script draws.
fn drawn(which: u64, grid: Grid, channels: usize) -> Array2<f32> {
    let noise = hashed(which, grid.cells() * channels);
    let axes = hashed(which + 100, 4 * channels);
    let objects = [(0.3, 0.3, 0.2, 0.15), (0.7, 0.65, 0.18, 0.2), (0.25, 0.75, 0.1, 0.12)];
    Array2::from_shape_fn((grid.cells(), channels), |(cell, channel)| {
        let y = ((cell / grid.width) as f64 + 0.5) / grid.height as f64;
        let x = ((cell % grid.width) as f64 + 0.5) / grid.width as f64;
        let mut part = 0;
        for (k, (cy, cx, ry, rx)) in objects.into_iter().enumerate() {
            if (y - cy) * (y - cy) / (ry * ry) + (x - cx) * (x - cx) / (rx * rx) < 1.0 {
                part = k + 1;
            }
        }
        let background = x * axes[channel];
        (axes[part * channels + channel]
            + 0.5 * background
            + 0.9 * noise[cell * channels + channel]) as f32
    })
}

/// Compares all rounds of a case.
fn check(case: &Value, features: &Array2<f32>) {
    let (name, grid) = (&case["name"], grid_of(&case["grid"]));
    let found = maskcut(features.view(), grid, &MaskCutOptions::default()).unwrap();
    for (i, (round, expected)) in
        found.rounds.iter().zip(case["rounds"].as_array().unwrap()).enumerate()
    {
        let mut cells = Vec::new();
        for (k, length) in numbers(&expected["runs"]).into_iter().enumerate() {
            cells.resize(cells.len() + length as usize, k % 2 == 1);
        }
        assert_eq!(round.mask.cells(), cells, "{name}, round {i}");
        let cut = round.cut.as_ref().unwrap();
        let (value, gap) = (expected["value"].as_f64().unwrap(), expected["gap"].as_f64().unwrap());
        assert!((cut.value - value).abs() < 1e-9, "{name}, round {i}: {} {value}", cut.value);
        assert!((cut.gap - gap).abs() < 1e-6, "{name}, round {i}: {} {gap}", cut.gap);
        let norm = cut.vector.iter().map(|y| y * y).sum::<f64>().sqrt();
        assert!(
            (norm / expected["norm"].as_f64().unwrap() - 1.0).abs() < 1e-6,
            "{name}, round {i}"
        );
        for (k, probe) in numbers(&expected["probes"]).into_iter().enumerate() {
            let weights = hashed(200 + k as u64, cut.vector.len());
            let found: f64 = weights.iter().zip(&cut.vector).map(|(w, y)| w * y / norm).sum();
            assert!((found - probe).abs() < 1e-6, "{name}, round {i}: {found} {probe}");
        }
    }
}

#[test]
fn masks_and_eigenvectors_are_those_of_the_dense_solver() {
    for case in fixture("maskcut.json").as_array().unwrap() {
        let which = case["which"].as_u64().unwrap();
        check(case, &drawn(which, grid_of(&case["grid"]), number(&case["channels"])));
    }
}

/// Returns the raw pixels of the patches of a photograph, minus 128.
fn pixels(image: &image::RgbImage, grid: Grid) -> Array2<f32> {
    let (rows, columns) =
        (image.height() as usize / grid.height, image.width() as usize / grid.width);
    Array2::from_shape_fn((grid.cells(), rows * columns * 3), |(cell, i)| {
        let y = cell / grid.width * rows + i / 3 / columns;
        let x = cell % grid.width * columns + i / 3 % columns;
        f32::from(image.get_pixel(x as u32, y as u32)[i % 3]) - 128.0
    })
}

#[test]
fn masks_of_photographs_are_those_of_the_dense_solver() {
    let Some(pack) = std::env::var_os("SIMDINO_TEST_DATA") else {
        eprintln!("skipped: SIMDINO_TEST_DATA names no folder with camvid.tar");
        return;
    };
    let cases = fixture("photos.json");
    let mut archive =
        tar::Archive::new(std::fs::File::open(Path::new(&pack).join("camvid.tar")).unwrap());
    let mut compared = 0;
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().to_string_lossy().into_owned();
        for case in cases.as_array().unwrap() {
            if path.ends_with(&format!("val/images/{}", case["name"].as_str().unwrap())) {
                let mut bytes = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
                let image = image::load_from_memory(&bytes).unwrap().to_rgb8();
                for case in
                    cases.as_array().unwrap().iter().filter(|other| other["name"] == case["name"])
                {
                    check(case, &pixels(&image, grid_of(&case["grid"])));
                    compared += 1;
                }
                break;
            }
        }
    }
    assert_eq!(compared, cases.as_array().unwrap().len());
}

#[test]
fn the_sign_of_the_vector_is_that_of_its_largest_entry() {
    let features = drawn(1, Grid::new(30, 30), 24);
    let cut = ncut(&Affinity::from_features(features.view(), 0.15).unwrap(), 1e-5).unwrap();
    let most = cut.vector.iter().copied().fold(0.0f64, |most, y| most.max(y.abs()));
    assert!(cut.vector.contains(&most));
}

#[test]
fn marginals_are_those_of_pydensecrf() {
    for case in fixture("crf.json").as_array().unwrap() {
        let grid = grid_of(&case["size"]);
        let noise = hashed(300, 3 * grid.cells());
        let (height, width) = (grid.height as i64, grid.width as i64);
        let mut rgb = Vec::new();
        let mut map = Vec::new();
        let jitter = hashed(301, grid.cells());
        for cell in 0..grid.cells() {
            let (y, x) = ((cell / grid.width) as i64, (cell % grid.width) as i64);
            let (dy, dx) = (2 * y - height, 2 * x - width);
            let inside = dy * dy * 4 + dx * dx * 3 < width * width;
            let color = if inside { [180.0, 90.0, 40.0] } else { [60.0, 100.0, 150.0] };
            rgb.extend((0..3).map(|k| (color[k] + 20.0 * noise[3 * cell + k]).floor() as u8));
            let object = x > width / 4 && y > height / 5;
            map.push((if object { 0.73 } else { 0.27 } + 0.2 * jitter[cell]) as f32);
        }
        let o: Vec<f32> = numbers(&case["options"]).into_iter().map(|x| x as f32).collect();
        let options = CrfOptions {
            gaussian_xy: o[0],
            gaussian_weight: o[1],
            bilateral_xy: o[2],
            bilateral_rgb: o[3],
            bilateral_weight: o[4],
            iterations: number(&case["iterations"]),
        };
        let marginal = Crf::new(&rgb, grid, &options).unwrap().marginals(&[map]).unwrap().remove(0);
        let expected = numbers(&case["marginal"]);
        let difference =
            marginal.iter().zip(expected).map(|(p, q)| (f64::from(*p) - q / 65535.0).abs());
        let worst = difference.fold(0.0, f64::max);
        assert!(worst < 1e-3, "{grid:?}: {worst}");
    }
}

#[test]
fn propagated_labels_are_those_of_all_pairs() {
    for case in fixture("propagate.json").as_array().unwrap() {
        let (grid, channels) = (grid_of(&case["grid"]), number(&case["channels"]));
        let (classes, cells) = (number(&case["classes"]), grid.cells());
        let still = hashed(400, cells * channels);
        let frame = |t: usize| {
            let noise = hashed(401 + t as u64, cells * channels);
            let values = still.iter().zip(noise).map(|(a, b)| (a + 0.6 * b) as f32).collect();
            Array2::from_shape_vec((cells, channels), values).unwrap()
        };
        let options = PropagateOptions {
            frames: number(&case["frames"]),
            radius: number(&case["radius"]),
            topk: number(&case["topk"]),
            temperature: case["temperature"].as_f64().unwrap(),
        };
        let ids: Vec<u8> = (0..cells).map(|i| (i * classes / cells) as u8).collect();
        let mut video =
            Propagator::new(frame(0).view(), one_hot(&ids).view(), grid, &options).unwrap();
        let mut labels = Array2::zeros((0, 0));
        for t in 1..=number(&case["steps"]) {
            labels = video.next(frame(t).view()).unwrap();
        }
        for (found, expected) in labels.iter().zip(numbers(&case["labels"])) {
            assert!(
                (f64::from(*found) - expected / 65535.0).abs() < 2e-5,
                "{found} {}",
                expected / 65535.0
            );
        }
    }
}

#[test]
fn resized_images_are_those_of_pillow() {
    for case in fixture("resize.json").as_array().unwrap() {
        let (from, to) = (grid_of(&case["from"]), grid_of(&case["to"]));
        let channels = number(&case["channels"]);
        let noise = hashed(500 + from.height as u64, from.cells() * channels);
        let pixel = |i: usize| {
            let (y, x) = (i / channels / from.width, i / channels % from.width);
            let textured = if (x + y) % 7 > 2 { 1.0 } else { 0.0 };
            (128.0 + 100.0 * noise[i] * textured).floor() as u8
        };
        let image: Vec<u8> = (0..noise.len()).map(pixel).collect();
        let filter = if case["filter"] == "LANCZOS" { Filter::Lanczos } else { Filter::Bicubic };
        let found = resize(&image, from, to, channels, filter).unwrap();
        let expected: Vec<u8> = numbers(&case["bytes"]).into_iter().map(|x| x as u8).collect();
        assert_eq!(found, expected, "{from:?} {to:?}");
    }
}
