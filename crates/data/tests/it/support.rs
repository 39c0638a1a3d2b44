//! Helpers that several test modules share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use augment::{AugmentConfig, EvalTransform, MultiCrop};
use data::batch::BatchGeometry;
use data::loader::{Batch, EvalBatch, EvalLoader, LoaderConfig, Position, TrainLoader};
use data::{DataConfig, Dataset, SourceKind, open};
use image::{Rgb, RgbImage};

/// Draws a picture that differs for every number.
pub fn picture(number: u32, width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let mix = number.wrapping_mul(2_654_435_761) >> 8;
        Rgb([(x * 9 + mix) as u8, (y * 7 + (mix >> 8)) as u8, ((x + y) * 3 + number) as u8])
    })
}

/// Writes `picture(number, 32, 24)` and creates the folders that it needs.
pub fn write_picture(path: &Path, number: u32) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    picture(number, 32, 24).save(path).unwrap();
}

/// Writes a file and creates the folders that it needs.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Returns `picture(number, 32, 24)` as the bytes of a PNG.
pub fn png(number: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(number, 32, 24).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Returns `picture(number, 32, 24)` as the bytes of a JPEG.
pub fn jpeg(number: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture(number, 32, 24).write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}

/// Returns a config that opens `path`.
pub fn config(source: SourceKind, path: &Path) -> DataConfig {
    DataConfig { source, path: Some(path.to_str().unwrap().into()), ..DataConfig::default() }
}

/// Returns the folder of data packs; if there is none, prints that the test is skipped.
pub fn packs() -> Option<PathBuf> {
    let packs = std::env::var_os("SIMDINO_TEST_DATA").map(PathBuf::from);
    if packs.is_none() {
        println!("skipped: SIMDINO_TEST_DATA does not name the folder of data packs");
    }
    packs
}

/// Opens a folder as a dataset.
pub fn folder(path: &Path) -> Arc<Dataset> {
    Arc::new(open(&config(SourceKind::Folder, path)).unwrap())
}

/// Returns options for small crops.
pub fn augment() -> AugmentConfig {
    AugmentConfig {
        global_crops_size: 16,
        local_crops_size: 8,
        local_crops_number: 3,
        ..AugmentConfig::default()
    }
}

/// Returns options for one process with two workers.
pub fn settings(batch_size: usize) -> LoaderConfig {
    LoaderConfig {
        seed: 7,
        geometry: BatchGeometry::new(batch_size).unwrap(),
        workers: Some(2),
        prefetch: 2,
        max_bad_fraction: 0.1,
    }
}

/// Creates a loader of small crops.
pub fn start(dataset: &Arc<Dataset>, config: LoaderConfig, position: (u64, u64)) -> TrainLoader {
    let (epoch, step) = position;
    let crops = MultiCrop::new(&augment());
    TrainLoader::new(dataset.clone(), crops, config, Position { epoch, step }).unwrap()
}

/// Takes the next `count` batches.
pub fn take(loader: &mut TrainLoader, count: usize) -> Vec<Batch> {
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

/// Returns whether two batches are equal, apart from the broken images that they report.
pub fn same(a: &Batch, b: &Batch) -> bool {
    (&a.global, &a.local, &a.samples) == (&b.global, &b.local, &b.samples)
        && (a.position, a.micro, a.micro_batch_size) == (b.position, b.micro, b.micro_batch_size)
}

/// Returns all batches of an evaluation loader with crops of 16 pixels.
pub fn evaluate(
    dataset: &Arc<Dataset>,
    batch: usize,
    workers: usize,
    indices: Option<Vec<usize>>,
) -> Vec<EvalBatch> {
    let transform = EvalTransform { resize: 20, crop: 16 };
    let loader = EvalLoader::new(dataset.clone(), transform, batch, workers, indices).unwrap();
    loader.map(Result::unwrap).collect()
}

/// Opens the dataset at a path, whatever its kind.
pub fn auto(path: &Path) -> Dataset {
    open(&config(SourceKind::Auto, path)).unwrap()
}

/// Returns the names of all images.
pub fn names(dataset: &Dataset) -> Vec<String> {
    (0..dataset.len()).map(|index| dataset.name(index)).collect()
}

/// Returns the labels of all images.
pub fn labels(dataset: &Dataset) -> Vec<Option<u32>> {
    (0..dataset.len()).map(|index| dataset.label(index)).collect()
}

/// Asserts that a path cannot be opened, with an error of one line that contains all of `parts`.
pub fn refused(source: SourceKind, path: &Path, parts: &[&str]) {
    let message = open(&config(source, path)).unwrap_err().chain();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert!(!message.contains('\n'), "{message}");
}
