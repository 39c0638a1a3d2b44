//! Tests that the memory of the loader is bounded by the number of batches prepared ahead and does
//! not grow with the dataset. The test has its own process, because it measures the peak memory of
//! the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use augment::{AugmentConfig, MultiCrop};
use data::batch::BatchGeometry;
use data::loader::{LoaderConfig, Position, TrainLoader};
use data::{DataConfig, SourceKind, open};

const MB: usize = 1 << 20;
/// Side of the image, whose pixels take 3 MiB.
const SIDE: u32 = 1024;
const WORKERS: usize = 2;
const PREFETCH: usize = 2;

fn loader_config() -> LoaderConfig {
    LoaderConfig {
        seed: 0,
        geometry: BatchGeometry::new(8).unwrap(),
        workers: Some(WORKERS),
        prefetch: PREFETCH,
        max_bad_fraction: 0.0,
    }
}

/// Returns the peak memory of this process so far, in bytes.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Takes 25 batches from a list of `lines` lines, and returns the number of bytes of one batch.
fn read(dir: &Path, lines: usize) -> usize {
    let list = dir.join(format!("{lines}.txt"));
    std::fs::write(&list, "image.png\n".repeat(lines)).unwrap();
    let path = list.to_string_lossy().into_owned();
    let config = DataConfig { path: Some(path), source: SourceKind::List, ..DataConfig::default() };
    let (dataset, crops) = (Arc::new(open(&config).unwrap()), AugmentConfig::default());
    let mut loader =
        TrainLoader::new(dataset, MultiCrop::new(&crops), loader_config(), Position::default())
            .unwrap();
    let batches = (0..25).map(|_| loader.next_batch().unwrap());
    batches
        .map(|batch| batch.global.pixels.len() + batch.local.unwrap().pixels.len())
        .max()
        .unwrap()
}

#[test]
fn memory_is_bounded_by_prefetch_and_batch() {
    let dir = tempfile::tempdir().unwrap();
    let image = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        image::Rgb([x, y, x ^ y].map(|value| (value / 4) as u8))
    });
    image.save(dir.path().join("image.png")).unwrap();
    drop(image);
    let before = peak_bytes();
    let batch = read(dir.path(), 30);
    let small = peak_bytes();
    // The allowance covers the batches that wait, are being made, or are in use; and for each
    // worker, an image, the decoder's buffers, and the crops in progress. Keeping all 200 images
    // that are read would take 600 MiB.
    let batches = (PREFETCH + 2) * batch;
    let workers = WORKERS * 4 * 3 * MB;
    let allowed = batches + workers + 60 * MB;
    println!("batch {batch} bytes, {} of {allowed} bytes used", small - before);
    assert!(small - before < allowed, "{} bytes", small - before);
    // For 200,000 images, only the list of their names may grow.
    read(dir.path(), 200_000);
    let more = peak_bytes() - small;
    println!("{more} bytes more for 200,000 images");
    assert!(more < 200_000 * 100 + 10 * MB, "{more} bytes");
}
