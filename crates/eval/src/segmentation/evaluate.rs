//! Runs a segmenter over a test set and scores it.

use std::thread::available_parallelism;

use data::decode::Image;
use data::dense::{DenseSample, DenseSet, in_order};
use data::loader::BrokenImage;
use serde::Serialize;

use super::confusion::Confusion;
use super::features::resized_labels;
use crate::error::{Error, Result};
use crate::record::DataUsed;

/// The size at which masks are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MaskSize {
    /// Each mask keeps its original size.
    Original,
    /// All masks are resized to a square with this side in pixels.
    Square(u32),
}

impl MaskSize {
    /// Returns the width and height of the mask of an image with this original size.
    pub fn of(self, original: (u32, u32)) -> (u32, u32) {
        match self {
            Self::Original => original,
            Self::Square(side) => (side, side),
        }
    }

    /// Returns the side of the square, if there is one.
    pub fn side(self) -> Option<u32> {
        match self {
            Self::Original => None,
            Self::Square(side) => Some(side),
        }
    }
}

/// Predicts the class of each pixel.
pub trait Segmenter {
    /// Returns the class of each pixel of `image` at the size `(width, height)`.
    ///
    /// # Errors
    /// Returns an error if the image cannot be processed.
    fn segment(&self, image: &Image, size: (u32, u32)) -> Result<Vec<u8>>;
}

/// A set of labeled images, and how many of them are used.
#[derive(Debug, Clone, Copy)]
pub struct DenseData<'a> {
    /// The images.
    pub set: &'a DenseSet,
    /// Maximum number of images, spread evenly over the set; `None` = all.
    pub limit: Option<usize>,
    /// Decoding threads; `None` = one per core.
    pub workers: Option<usize>,
}

/// Counts of the images read from a set.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadSet {
    /// Number of images that were used.
    pub(crate) images: usize,
    /// Images that were skipped.
    pub(crate) broken: Vec<BrokenImage>,
}

impl DenseData<'_> {
    /// Describes the images for a record; `images` is the number that were used.
    pub fn used(&self, role: &str, images: usize) -> DataUsed {
        DataUsed {
            role: role.to_owned(),
            path: self.set.path().display().to_string(),
            fingerprint: self.set.fingerprint(),
            images,
            classes: Some(self.set.rules().classes()),
        }
    }

    /// Returns the indices of the images in use.
    pub(super) fn indices(&self) -> Vec<usize> {
        crate::subset::evenly_spaced(self.set.len(), self.limit)
    }

    /// Returns the number of decoding threads.
    pub(super) fn threads(&self) -> usize {
        threads(self.workers)
    }

    /// Calls [`read_each`] for this set; fails if no image can be read.
    pub(super) fn each<T: Send>(
        &self,
        indices: &[usize],
        make: impl Fn(usize, DenseSample) -> Result<T> + Sync,
        take: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<ReadSet> {
        self.each_readable(indices, make, take)?.not_empty()
    }

    /// [`Self::each`], but succeeds even if no image can be read.
    pub(super) fn each_readable<T: Send>(
        &self,
        indices: &[usize],
        make: impl Fn(usize, DenseSample) -> Result<T> + Sync,
        take: impl FnMut(usize, T) -> Result<()>,
    ) -> Result<ReadSet> {
        let work = |index: usize| {
            self.set.load(index).map_err(Error::from).and_then(|sample| make(index, sample))
        };
        read_each(indices, self.threads(), work, |index| self.set.name(index), take)
    }
}

impl ReadSet {
    /// Fails if no image could be read.
    pub(crate) fn not_empty(self) -> Result<Self> {
        if self.images > 0 {
            return Ok(self);
        }
        let first = self.broken.first().map(|b| format!("{}: {}", b.name, b.reason));
        Err(Error::NoImages { asked: self.broken.len(), first: first.unwrap_or_default() })
    }
}

/// Returns `workers`, or the number of cores if that is `None`.
pub(crate) fn threads(workers: Option<usize>) -> usize {
    workers.unwrap_or_else(|| available_parallelism().map_or(1, usize::from))
}

/// Calls `make` for each of `indices` on several threads, and passes the results to `take` in
/// order, each with its position in `indices`. An image that cannot be read or prepared is skipped
/// and listed by its `name`.
pub(crate) fn read_each<T: Send>(
    indices: &[usize],
    threads: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
    name: impl Fn(usize) -> String,
    mut take: impl FnMut(usize, T) -> Result<()>,
) -> Result<ReadSet> {
    let mut read = ReadSet::default();
    let work = |place: usize| make(indices.get(place).copied().unwrap_or_default());
    in_order(0..indices.len(), threads, work, |place, made| match made {
        Ok(made) => {
            read.images += 1;
            take(place, made)
        }
        Err(error) => {
            let (index, reason) = (indices[place], base::error_chain(&error));
            read.broken.push(BrokenImage { index, name: name(index), reason });
            Ok(())
        }
    })?;
    Ok(read)
}

/// The result of [`evaluate`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Evaluated {
    /// Pixel counts by class.
    pub confusion: Confusion,
    /// Number of images scored.
    pub images: usize,
    /// Images that could not be read and are not scored.
    pub broken: Vec<BrokenImage>,
}

/// A callback for the index of an image in the set, the image with its labels, and its predicted
/// classes.
pub type OnImage<'a> = dyn FnMut(usize, &DenseSample, &[u8]) -> Result<()> + 'a;

/// Scores `segmenter` on a set. Calls `on_image(index, sample, predicted)` for each image; labels and
/// predictions have the size of the masks, and the image has its original size.
///
/// # Errors
/// Returns an error if no image is readable, or the segmenter fails.
pub fn evaluate(
    data: &DenseData<'_>,
    segmenter: &dyn Segmenter,
    mask: MaskSize,
    on_image: &mut OnImage<'_>,
) -> Result<Evaluated> {
    let (confusion, read) = counts(data, &data.indices(), segmenter, mask, on_image)?;
    let read = read.not_empty()?;
    Ok(Evaluated { confusion, images: read.images, broken: read.broken })
}

/// [`evaluate`] for the images with these indices, possibly none of which is readable.
pub(super) fn counts(
    data: &DenseData<'_>,
    indices: &[usize],
    segmenter: &dyn Segmenter,
    mask: MaskSize,
    on_image: &mut OnImage<'_>,
) -> Result<(Confusion, ReadSet)> {
    let mut confusion = Confusion::new(data.set.rules().classes());
    let at_mask_size = |_, sample: DenseSample| {
        let (width, height) = mask.of(sample.image.dimensions());
        let labels = resized_labels(&sample.labels, width, height);
        Ok(DenseSample { labels, ..sample })
    };
    let read = data.each_readable(indices, at_mask_size, |place, sample| {
        let size = (sample.labels.width, sample.labels.height);
        let predicted = segmenter.segment(&sample.image, size)?;
        confusion.add(&sample.labels.ids, &predicted)?;
        on_image(indices[place], &sample, &predicted)
    })?;
    Ok((confusion, read))
}
