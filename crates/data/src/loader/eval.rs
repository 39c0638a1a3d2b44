//! The evaluation loader. It delivers every image once, in order, resized and center-cropped, or
//! random crops for training a classifier.

use std::sync::Arc;
use std::time::Duration;

use ndarray::Array4;

use super::BrokenImage;
use super::pipeline::{Patience, Pipeline, WorkerPool};
use crate::dataset::Dataset;
use crate::error::{Error, Result};
use augment::{EvalTransform, RandomCrop};

/// Number of batches prepared ahead.
const PREFETCH: usize = 3;

/// A batch of B images of a dataset, at least 1.
#[derive(Debug, Clone)]
pub struct EvalBatch {
    /// `[B, H, W, C]`, with C values per pixel.
    pub images: Array4<u8>,
    /// Index of each image in the dataset.
    pub indices: Vec<usize>,
    /// Label of each image, if it has one.
    pub labels: Vec<Option<u32>>,
    /// Images that were skipped because they are broken; they are not included in B or in the
    /// fields above.
    pub broken: Vec<BrokenImage>,
}

/// An iterator over [`EvalBatch`]es in the order of the indices. Broken images are skipped, so a
/// batch can be smaller than requested; if all are broken, the only item is an error. If the
/// dataset is stopped ([`Dataset::stop_on`]), the next item is [`Error::Interrupted`]. An error is
/// the last item.
pub struct EvalLoader {
    dataset: Arc<Dataset>,
    pipeline: Pipeline<Vec<Use>, EvalBatch>,
    /// Batches that have not been submitted yet.
    ahead: std::vec::IntoIter<Vec<Use>>,
    /// A batch that is held back, so that the broken images of empty batches after it can be added
    /// to it.
    held: Option<EvalBatch>,
    /// Broken images before the first batch.
    orphans: Vec<BrokenImage>,
    /// Whether the last item has been returned.
    ended: bool,
}

/// The index of an image and a number that seeds its random crop.
type Use = (usize, u64);

/// How an image becomes a square.
#[derive(Clone, Copy)]
enum Transform {
    Center(EvalTransform),
    Random(RandomCrop),
}

impl Transform {
    /// Returns the side of the square, in pixels.
    fn side(&self) -> u32 {
        match self {
            Self::Center(transform) => transform.crop,
            Self::Random(crop) => crop.side,
        }
    }
}

impl std::fmt::Debug for EvalLoader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvalLoader").field("dataset", &self.dataset).finish_non_exhaustive()
    }
}

impl EvalLoader {
    /// Creates a loader that reads `indices` of the dataset, or all of it, in batches of `batch`
    /// images, on `workers` threads (`None` = one per core).
    ///
    /// # Errors
    /// Returns an error if `batch` or a size of `transform` is 0, an index is out of range, or the
    /// threads cannot be started.
    pub fn new(
        dataset: Arc<Dataset>,
        transform: EvalTransform,
        batch: usize,
        workers: impl Into<Option<usize>>,
        indices: Option<Vec<usize>>,
    ) -> Result<Self> {
        if transform.crop == 0 || transform.resize == 0 {
            let problem = format!("sizes must be at least 1 pixel (got {transform:?})");
            return Err(Error::Config { key: "eval transform", problem });
        }
        let len = dataset.len();
        let uses = indices.unwrap_or_else(|| (0..len).collect()).into_iter();
        let uses = uses.map(|index| (index, 0)).collect();
        Self::start(dataset, Transform::Center(transform), batch, workers.into(), uses)
    }

    /// Creates a loader of random crops. Each element of `uses` is the index of an image in the
    /// dataset and a number that seeds its crop. An image may be used several times.
    ///
    /// # Errors
    /// Returns an error if `batch` or the side of the crop is 0, an index is out of range, or the
    /// threads cannot be started.
    pub fn random_crops(
        dataset: Arc<Dataset>,
        crop: RandomCrop,
        batch: usize,
        workers: impl Into<Option<usize>>,
        uses: Vec<(usize, u64)>,
    ) -> Result<Self> {
        if crop.side == 0 {
            let problem = "must be at least 1 pixel (got 0)".into();
            return Err(Error::Config { key: "side of random crops", problem });
        }
        Self::start(dataset, Transform::Random(crop), batch, workers.into(), uses)
    }

    fn start(
        dataset: Arc<Dataset>,
        transform: Transform,
        batch: usize,
        workers: Option<usize>,
        uses: Vec<Use>,
    ) -> Result<Self> {
        if batch == 0 {
            let problem = "must be at least 1 (got 0)".into();
            return Err(Error::Config { key: "eval batch", problem });
        }
        let len = dataset.len();
        if let Some(&(index, _)) = uses.iter().find(|&&(index, _)| index >= len) {
            return Err(Error::Index { index, len });
        }
        let batches: Vec<Vec<Use>> = uses.chunks(batch).map(<[Use]>::to_vec).collect();
        let all = Arc::clone(&dataset);
        let pipeline =
            Pipeline::start(workers, PREFETCH, move |uses, workers_pool: &WorkerPool| {
                make(&all, transform, uses, workers_pool)
            })?;
        let ahead = batches.into_iter();
        Ok(Self { dataset, pipeline, ahead, held: None, orphans: Vec::new(), ended: false })
    }

    /// Returns the broken images that no batch has listed: all images, if none could be read.
    pub fn take_undelivered(&mut self) -> Vec<BrokenImage> {
        std::mem::take(&mut self.orphans)
    }

    fn next_made(&mut self) -> Option<Result<EvalBatch>> {
        while self.pipeline.pending() < PREFETCH {
            let Some(uses) = self.ahead.next() else { break };
            self.pipeline.submit(uses);
        }
        // An evaluation that is stopped early has no result, so nothing is worth waiting for.
        let stop = || self.dataset.is_stopped();
        if stop() && self.pipeline.pending() > 0 {
            return Some(Err(Error::Interrupted));
        }
        self.pipeline.next(&Patience { stop: &stop, grace: Duration::ZERO })
    }
}

impl Iterator for EvalLoader {
    type Item = Result<EvalBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.next_item();
        self.ended = !matches!(item, Some(Ok(_)));
        item
    }
}

impl EvalLoader {
    fn next_item(&mut self) -> Option<Result<EvalBatch>> {
        loop {
            let mut made = match self.next_made() {
                Some(Ok(made)) => made,
                Some(Err(error)) => return Some(Err(error)),
                None => return self.last(),
            };
            if made.indices.is_empty() {
                let held = self.held.as_mut().map(|batch| &mut batch.broken);
                held.unwrap_or(&mut self.orphans).append(&mut made.broken);
                continue;
            }
            made.broken.splice(0..0, self.orphans.drain(..));
            if let Some(ready) = self.held.replace(made) {
                return Some(Ok(ready));
            }
        }
    }

    fn last(&mut self) -> Option<Result<EvalBatch>> {
        if let Some(held) = self.held.take() {
            return Some(Ok(held));
        }
        let tried = self.orphans.len();
        let BrokenImage { name: first, reason, .. } = self.orphans.first()?.clone();
        Some(Err(Error::NoReadableImage { tried, first, reason }))
    }
}

/// An image, the memory for its pixels, and the reason if it turns out to be broken.
struct Row<'a> {
    image: Use,
    pixels: &'a mut [u8],
    broken: &'a mut Option<BrokenImage>,
}

fn make(
    dataset: &Dataset,
    transform: Transform,
    uses: Vec<Use>,
    workers_pool: &WorkerPool,
) -> Result<EvalBatch> {
    let side = transform.side() as usize;
    let bytes = dataset.channels() * side * side;
    let mut pixels = vec![0; bytes * uses.len()];
    let mut failures: Vec<Option<BrokenImage>> = vec![None; uses.len()];
    let rows = uses
        .iter()
        .zip(pixels.chunks_exact_mut(bytes))
        .zip(&mut failures)
        .map(|((&image, pixels), broken)| Row { image, pixels, broken })
        .collect();
    workers_pool.for_each(rows, |row: Row<'_>| {
        match read(dataset, transform, row.image, row.pixels) {
            Ok(()) => {}
            Err(error) => {
                let (index, _) = row.image;
                let name = dataset.name(index);
                *row.broken = Some(BrokenImage::new(index, name, error));
            }
        }
    });

    let mut good = Vec::with_capacity(uses.len());
    for (row, (index, _)) in uses.iter().enumerate().filter(|(row, _)| failures[*row].is_none()) {
        // Closes the gaps of broken images.
        pixels.copy_within(row * bytes..(row + 1) * bytes, good.len() * bytes);
        good.push(*index);
    }
    pixels.truncate(good.len() * bytes);
    let got = pixels.len();
    let images = Array4::from_shape_vec((good.len(), side, side, dataset.channels()), pixels)
        .map_err(|_| augment::Error::Buffer { what: "pixels of a batch", expected: bytes, got })?;
    let labels = good.iter().map(|&index| dataset.label(index)).collect();
    let broken = failures.into_iter().flatten().collect();
    Ok(EvalBatch { images, indices: good, labels, broken })
}

fn read(
    dataset: &Dataset,
    transform: Transform,
    (index, number): Use,
    pixels: &mut [u8],
) -> Result<()> {
    let image = dataset.image(index)?;
    let image = match transform {
        Transform::Center(transform) => transform.apply((&image).into())?,
        Transform::Random(crop) => crop.apply((&image).into(), number)?,
    };
    if image.data().len() != pixels.len() {
        let (expected, got) = (pixels.len(), image.data().len());
        return Err(augment::Error::Buffer { what: "pixels of an image", expected, got }.into());
    }
    pixels.copy_from_slice(image.data());
    Ok(())
}
