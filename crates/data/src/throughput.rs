//! Measures how fast a dataset is read, by the whole training pipeline or by decoding alone.

use std::sync::Arc;
use std::time::Instant;

use crate::batch::BatchGeometry;
use crate::dataset::Dataset;
use crate::error::Result;
use crate::loader::{LoaderConfig, Position, TrainLoader};
use augment::{AugmentConfig, MultiCrop};

/// Number of images per batch, if the dataset has that many.
const BATCH: usize = 32;
/// Number of batches prepared ahead.
const PREFETCH: usize = 4;

/// Measures the throughput of the training loader, in images per second: from encoded bytes of the
/// source to batches of crops, on `workers` threads (`None` = one per core). Batches are consumed
/// as fast as they arrive, for `seconds` and at least one batch.
///
/// # Errors
/// Same as [`TrainLoader::new`] and [`TrainLoader::next_batch`].
pub fn pipeline(
    dataset: &Arc<Dataset>,
    augment: &AugmentConfig,
    workers: impl Into<Option<usize>>,
    seconds: f64,
) -> Result<f64> {
    let config = LoaderConfig {
        workers: workers.into(),
        prefetch: PREFETCH,
        max_bad_fraction: 1.0,
        ..LoaderConfig::new(BatchGeometry::new(BATCH.min(dataset.len()))?)
    };
    let crops = MultiCrop::new(augment);
    let mut loader = TrainLoader::new(dataset.clone(), crops, config, Position::default())?;
    // Batches that were prepared before the clock starts must not be counted.
    for _ in 0..PREFETCH {
        loader.next_batch()?;
    }
    let (start, mut images) = (Instant::now(), 0);
    while images == 0 || goes_on(start, seconds) {
        images += loader.next_batch()?.micro_batch_size;
    }
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Measures the throughput of reading and decoding alone, in images per second, on the calling
/// thread, for `seconds` and at least one image. This is an upper limit per thread for any
/// augmentation.
///
/// # Errors
/// Returns an error if no image can be read. Broken images are otherwise skipped and not counted.
pub fn decoding(dataset: &Dataset, seconds: f64) -> Result<f64> {
    let (start, mut images) = (Instant::now(), 0);
    for index in (0..dataset.len()).cycle() {
        match dataset.image(index) {
            Ok(_) => images += 1,
            Err(error) if images == 0 && index + 1 == dataset.len() => return Err(error),
            Err(_) => {}
        }
        if images > 0 && !goes_on(start, seconds) {
            break;
        }
    }
    Ok(images as f64 / start.elapsed().as_secs_f64())
}

/// Returns whether fewer than `seconds` have passed since `start`; always `false` if `seconds` is
/// negative or NaN.
fn goes_on(start: Instant, seconds: f64) -> bool {
    start.elapsed().as_secs_f64() < seconds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DataConfig;

    #[test]
    fn broken_images_are_passed_over_unless_there_are_no_others() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.jpg"), "text").unwrap();
        let path = dir.path().to_string_lossy().into_owned();
        let open = || {
            Arc::new(
                crate::open(&DataConfig { path: Some(path.clone()), ..Default::default() })
                    .unwrap(),
            )
        };
        assert!(decoding(&open(), 0.001).is_err());
        image::RgbImage::new(20, 20).save(dir.path().join("b.png")).unwrap();
        assert!(decoding(&open(), 0.001).unwrap() > 0.0);
        assert!(pipeline(&open(), &AugmentConfig::default(), 1, 0.001).unwrap() > 0.0);
        for no_time in [-1.0, f64::NAN] {
            assert!(decoding(&open(), no_time).unwrap() > 0.0);
            assert!(pipeline(&open(), &AugmentConfig::default(), 1, no_time).unwrap() > 0.0);
        }
    }
}
