//! The loader's memory is bounded by prefetch times batch and does not grow with the dataset. The
//! test has its own process, because it measures the peak memory of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use augment::{AugmentConfig, MultiCrop};
use data::batch::BatchGeometry;
use data::loader::{LoaderConfig, Position, TrainLoader};
use data::{DataConfig, SourceKind, open};

const MB: usize = 1 << 20;
/// Side of the image, whose pixels take 3 MB.
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

/// Largest memory of this process so far.
fn peak_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

/// Takes 25 batches of a list of `lines` lines; the bytes of one batch.
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
    // Batches that wait, that are made and the one in use; for each worker an image, what its decoder
    // takes, and the crops that are worked on. All 200 images that were read would take 600 MB.
    let batches = (PREFETCH + 2) * batch;
    let workers = WORKERS * 4 * 3 * MB;
    let allowed = batches + workers + 60 * MB;
    println!("batch {batch} bytes, {} of {allowed} bytes used", small - before);
    assert!(small - before < allowed, "{} bytes", small - before);
    // 200,000 images take a list of them and nothing else.
    read(dir.path(), 200_000);
    let more = peak_bytes() - small;
    println!("{more} bytes more for 200,000 images");
    assert!(more < 200_000 * 100 + 10 * MB, "{more} bytes");
}
