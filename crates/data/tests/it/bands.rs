//! Images with a number of channels other than three, from files to batches.

use std::path::Path;
use std::sync::Arc;

use augment::{AugmentConfig, EvalTransform, MultiCrop};
use data::loader::{EvalLoader, Position, TrainLoader};
use data::{CacheKind, DataConfig, Dataset, Error, open};
use tempfile::TempDir;

use crate::support::{augment, same, settings, take, write_picture};

/// Creates a folder with `copies` copies of a fixture of the decoder, of 18 x 21 pixels.
fn copies(name: &str, copies: usize) -> TempDir {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../decode/tests/fixtures/bands");
    let dir = tempfile::tempdir().unwrap();
    for number in 0..copies {
        std::fs::copy(fixtures.join(name), dir.path().join(format!("{number:02}.tif"))).unwrap();
    }
    dir
}

fn config(dir: &TempDir, channels: usize) -> DataConfig {
    let path = dir.path().to_string_lossy().into_owned();
    DataConfig {
        path: Some(path),
        channels,
        value_range: vec![[0.0, 5000.0]],
        ..DataConfig::default()
    }
}

/// Returns options for small crops without changes of color.
fn colorless() -> AugmentConfig {
    AugmentConfig { saturation: 0.0, hue: 0.0, gray_prob: 0.0, ..augment() }
}

fn loader(dataset: &Arc<Dataset>, workers: usize) -> TrainLoader {
    let config = data::loader::LoaderConfig { workers: Some(workers), ..settings(4) };
    let crops = MultiCrop::new(&colorless());
    TrainLoader::new(dataset.clone(), crops, config, Position::default()).unwrap()
}

#[test]
fn batches_have_a_place_for_every_channel() {
    for (name, channels) in [("gray_u16.tif", 1), ("two_u8.tif", 2), ("five_planar_u16.tif", 5)] {
        let dir = copies(name, 9);
        let dataset = Arc::new(open(&config(&dir, channels)).unwrap());
        assert_eq!(dataset.channels(), channels);
        let batches = take(&mut loader(&dataset, 1), 3);
        assert_eq!(batches[0].global.shape, [8, 16, 16, channels]);
        assert_eq!(batches[0].local.as_ref().unwrap().shape, [12, 8, 8, channels]);
        let again = take(&mut loader(&dataset, 3), 3);
        assert!(batches.iter().zip(&again).all(|(a, b)| same(a, b)), "{name}");
        // Images from the cache give the same batches as images from files.
        let kept = DataConfig { cache: CacheKind::Decoded, ..config(&dir, channels) };
        let kept = take(&mut loader(&Arc::new(open(&kept).unwrap()), 2), 6);
        assert!(batches.iter().zip(&kept).all(|(a, b)| same(a, b)), "{name}");

        let transform = EvalTransform { resize: 18, crop: 16 };
        let mut eval = EvalLoader::new(dataset.clone(), transform, 4, 1, None).unwrap();
        let batch = eval.next().unwrap().unwrap();
        assert_eq!(batch.images.dim(), (4, 16, 16, channels));
        // The shorter side already has the target size, so the crop is the middle of the image.
        let image = dataset.image(0).unwrap();
        let (row, column, c) = (3, 5, channels - 1);
        let expected = image.data()[((row + 2) * 18 + column + 1) * channels + c];
        assert_eq!(batch.images[[0, row, column, c]], expected, "{name}");
    }
}

#[test]
fn other_images_are_broken_and_say_why() {
    let dir = copies("five_u16.tif", 3);
    write_picture(&dir.path().join("photo.png"), 1);
    let dataset = open(&config(&dir, 5)).unwrap();
    let error = dataset.image(3).unwrap_err().chain();
    assert_eq!(error, "image photo.png: png image with 3 channels (expected 5)");
    let report = data::check::check(&dataset, |_| ());
    assert_eq!((report.images, report.broken.len(), report.mean.len()), (4, 1, 5));
    assert_eq!((report.value_percentiles.len(), report.std.len()), (5, 5));
    let rgb = open(&config(&dir, 3)).unwrap();
    assert_eq!(data::check::check(&rgb, |_| ()).broken.len(), 3);
}

#[test]
fn statistics_are_those_of_each_channel() {
    let dir = copies("five_u16.tif", 2);
    let dataset = open(&config(&dir, 5)).unwrap();
    let report = data::check::check(&dataset, |_| ());
    let image = dataset.image(0).unwrap();
    for channel in 0..5 {
        let values = || image.data().iter().skip(channel).step_by(5).map(|&v| f64::from(v) / 255.0);
        let count = f64::from(18 * 21);
        let mean = values().sum::<f64>() / count;
        let variance = values().map(|v| (v - mean).powi(2)).sum::<f64>() / count;
        assert!((report.mean[channel] - mean).abs() < 1e-9);
        assert!((report.std[channel] - variance.sqrt()).abs() < 1e-9);
        // The values of the file are drawn from 0 to 5000, including both ends.
        let [low, high] = report.value_percentiles[channel];
        assert!((0.0..2500.0).contains(&low) && high > low && high <= 5000.0, "{low} {high}");
    }
}

#[test]
fn colors_are_refused_where_there_are_none() {
    let dir = copies("five_u16.tif", 5);
    let dataset = Arc::new(open(&config(&dir, 5)).unwrap());
    for (key, change) in [
        ("saturation", AugmentConfig { saturation: 0.1, ..colorless() }),
        ("hue", AugmentConfig { hue: 0.1, ..colorless() }),
        ("gray_prob", AugmentConfig { gray_prob: 0.1, ..colorless() }),
    ] {
        let crops = MultiCrop::new(&change);
        let refused = TrainLoader::new(dataset.clone(), crops, settings(4), Position::default());
        let Err(Error::Augment(augment::Error::Config { key: found, problem })) = refused else {
            panic!("{key} passed")
        };
        assert!(found == key && problem.contains("3 channels (got 5)"), "{found}: {problem}");
    }
}

#[test]
fn drawn_images_are_rgb() {
    let mut config = DataConfig { source: data::SourceKind::Synthetic, ..DataConfig::default() };
    assert!(config.validate().is_empty());
    config.channels = 4;
    assert_eq!(config.validate()[0].0, "source");
    let error = open(&config).unwrap().image(0).unwrap_err().chain();
    assert!(error.contains("synthetic image with 3 channels (expected 4)"), "{error}");
}
