//! How fast a data set is read: the whole training pipeline, or its decoding alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::AugmentConfig;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::loader::{LoaderConfig, Position, TrainLoader};
use crate::transform::MultiCrop;

/// Images of a batch, if there are so many.
const BATCH: usize = 32;
/// Batches prepared ahead.
const PREFETCH: usize = 4;

/// Images per second of the training loader: encoded bytes from the source to batches of crops, on
/// `workers` threads (0 = one per core), taken as fast as they come for `seconds`.
///
/// # Errors
/// As [`TrainLoader::new`] and [`TrainLoader::next_batch`].
pub fn pipeline(
    dataset: &Arc<Dataset>,
    augment: &AugmentConfig,
    workers: usize,
    seconds: f64,
) -> Result<f64> {
    let config = LoaderConfig {
        seed: 0,
        global_batch: BATCH.min(dataset.len()),
        accumulate: 1,
        rank: 0,
        world_size: 1,
        workers,
        prefetch: PREFETCH,
        max_bad_fraction: 1.0,
    };
    let crops = MultiCrop::new(augment);
    let mut loader = TrainLoader::new(dataset.clone(), crops, config, Position::default())?;
    // What was prepared before the clock starts would count as made in no time.
    for _ in 0..PREFETCH {
        loader.next_batch()?;
    }
    let (start, mut images) = (Instant::now(), 0);
    while images == 0 || start.elapsed() < Duration::from_secs_f64(seconds) {
        images += loader.next_batch()?.batch_size;
    }
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Images per second of reading and decoding alone, on the calling thread, for `seconds`: what no
/// augmentation, however fast, can exceed.
///
/// # Errors
/// An image is broken.
pub fn decoding(dataset: &Dataset, seconds: f64) -> Result<f64> {
    let (start, mut images) = (Instant::now(), 0);
    while images == 0 || start.elapsed() < Duration::from_secs_f64(seconds) {
        dataset.image(images % dataset.len())?;
        images += 1;
    }
    Ok(images as f64 / start.elapsed().as_secs_f64())
}
