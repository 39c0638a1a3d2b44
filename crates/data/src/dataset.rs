//! A source of images combined with decoding: the type that loaders and tools read from.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use decode::Decoded;
use image::GrayImage;
use sha2::{Digest, Sha256};

use crate::cache::Cache;
use crate::config::{CacheKind, DataConfig};
use crate::error::{Error, Result};
use crate::source::{self, Notices, Payload, Source, SourcePart};
use decode::{Image, PixelFormat};

/// Opens the dataset that `config` names.
///
/// # Errors
/// Returns an error if the path does not exist, contains no images, or cannot be read; the message
/// says which.
pub fn open(config: &DataConfig) -> Result<Dataset> {
    let mut dataset = Dataset::new(source::open(config)?, config.min_side).with(config.pixels());
    dataset.cache = Cache::new(config.cache, config.cache_gb);
    Ok(dataset)
}

/// A fixed, ordered collection of images with random access from any number of threads.
pub struct Dataset {
    source: Box<dyn Source>,
    min_side: u32,
    pixels: PixelFormat,
    cache: Cache,
    fingerprint: OnceLock<String>,
    sample: OnceLock<String>,
    stop: OnceLock<Arc<AtomicBool>>,
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dataset({}, {} images)", self.kind(), self.len())
    }
}

impl Dataset {
    /// Creates a dataset of RGB images from `source`. An image whose shorter side is below
    /// `min_side` pixels counts as broken.
    pub fn new(source: Box<dyn Source>, min_side: u32) -> Self {
        let cache = Cache::new(CacheKind::None, 0.0);
        let (fingerprint, sample, stop) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self { source, min_side, pixels: PixelFormat::RGB, cache, fingerprint, sample, stop }
    }

    /// Returns the same dataset with a different pixel format. An image with a different number of
    /// channels counts as broken.
    pub fn with(self, pixels: PixelFormat) -> Self {
        Self { pixels, ..self }
    }

    /// Returns the number of values per pixel, which is the same for every image.
    pub fn channels(&self) -> usize {
        self.pixels.channels
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// Returns whether there are no images, which is never the case for a dataset from [`open`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns how an epoch is composed; see [`Source::parts`].
    pub fn parts(&self) -> Vec<SourcePart> {
        self.source.parts()
    }

    /// Returns the kind of the source: "folder", "list", "shards", "parquet", "synthetic", or
    /// "mix".
    pub fn kind(&self) -> &'static str {
        self.source.kind()
    }

    /// Returns the name of image `index` in its source; empty if the index is out of range.
    pub fn name(&self, index: usize) -> String {
        self.source.name(index)
    }

    /// Returns the class of image `index`, if it has one.
    pub fn label(&self, index: usize) -> Option<u32> {
        self.source.label(index)
    }

    /// Returns the names of the classes, indexed by label; empty if there are no labels or they are
    /// plain numbers.
    pub fn class_names(&self) -> &[String] {
        self.source.class_names()
    }

    /// Returns the number of classes: the number of names, or one more than the largest label; 0
    /// without labels. If the labels are plain numbers, each call scans all of them.
    pub fn num_classes(&self) -> usize {
        let named = self.class_names().len();
        if named > 0 {
            return named;
        }
        let largest = (0..self.len()).filter_map(|index| self.label(index)).max();
        largest.map_or(0, |label| label as usize + 1)
    }

    /// Returns what the source found besides images, such as ignored files and unreadable labels.
    pub fn notices(&self) -> Notices {
        self.source.notices()
    }

    /// Returns a short hex digest that changes when names, labels, or sizes of the images change.
    /// The first call reads the metadata of every file in a folder, which takes a while for a large
    /// one; later calls return the cached digest.
    pub fn fingerprint(&self) -> String {
        self.fingerprint.get_or_init(|| self.source.fingerprint()).clone()
    }

    /// Returns a short hex digest that changes with the contents of some of the images, spread
    /// evenly over the dataset. With [`Self::fingerprint`], it identifies what is computed from the
    /// images: uncompressed images of one resolution, for example, all have the same size. The first
    /// call reads these images; later calls return the cached digest.
    pub fn sample(&self) -> String {
        let bytes = |index| match self.source.load(index).ok()? {
            Payload::Encoded(bytes) => Some(bytes),
            Payload::Pixels(image) => Some(image.data().to_vec()),
        };
        self.sample.get_or_init(|| source::sample(self.len(), bytes)).clone()
    }

    /// Returns the indices of up to `count` readable images, spread evenly over the dataset,
    /// because images may be stored class by class. A few images are tried for each of the `count`
    /// positions.
    pub fn readable(&self, count: usize) -> Vec<usize> {
        const TRIES: usize = 8;
        let len = self.len();
        let count = count.min(len);
        let bounds = |part: usize| part * len / count..(part + 1) * len / count;
        (0..count)
            .filter_map(|part| bounds(part).take(TRIES).find(|&index| self.image(index).is_ok()))
            .collect()
    }

    /// Makes loaders of this dataset stop waiting for images once `flag` is set, because a source
    /// may never respond. Only the first flag that is passed has an effect.
    pub fn stop_on(&self, flag: Arc<AtomicBool>) {
        let _ = self.stop.set(flag);
    }

    /// Returns whether the flag of [`Self::stop_on`] is set.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.get().is_some_and(|flag| flag.load(Ordering::Relaxed))
    }

    /// Reads and decodes image `index`.
    ///
    /// # Errors
    /// Returns [`Error::Image`] with the name of the image and the reason.
    pub fn image(&self, index: usize) -> Result<Image> {
        self.read(index).map_err(|error| self.named(index, error))
    }

    fn read(&self, index: usize) -> Result<Image> {
        if let Some(kept) = self.cache.get(index) {
            return Ok(self.decode(&kept)?.image);
        }
        let payload = self.load(index)?;
        let image = self.decode(&payload)?.image;
        self.cache.offer(index, payload, &image);
        Ok(image)
    }

    /// Like [`Dataset::image`], but bypasses the cache and also returns information about the file,
    /// including the values of about `sample` of its pixels.
    ///
    /// # Errors
    /// Same as [`Dataset::image`].
    pub fn inspect(&self, index: usize, sample: usize) -> Result<Inspection> {
        let inspection = self.load(index).and_then(|payload| match payload {
            Payload::Encoded(bytes) => {
                let raw = decode::read(&bytes)?;
                let (format, values) = (raw.format(), raw.sample(sample));
                let image = self.large_enough(raw.into_image(&self.pixels)?)?;
                Ok(Inspection { image, format, digest: digest(&bytes), values })
            }
            Payload::Pixels(_) => {
                let Decoded { image, format } = self.decode(&payload)?;
                let digest = digest(image.data());
                Ok(Inspection { image, format, digest, values: None })
            }
        });
        inspection.map_err(|error| self.named(index, error))
    }

    /// Returns the mask of the object in image `index` (0 or 255), if the source has one.
    pub fn mask(&self, index: usize) -> Option<GrayImage> {
        self.source.mask(index)
    }

    fn named(&self, index: usize, error: Error) -> Error {
        Error::Image { name: self.name(index), source: Box::new(error) }
    }

    fn load(&self, index: usize) -> Result<Payload> {
        if index >= self.len() {
            return Err(Error::Index { index, len: self.len() });
        }
        self.source.load(index)
    }

    fn decode(&self, payload: &Payload) -> Result<Decoded> {
        let decoded = match payload {
            Payload::Encoded(bytes) => decode::decode_as(bytes, &self.pixels)?,
            Payload::Pixels(image) if image.channels() == self.pixels.channels => {
                Decoded { image: image.clone(), format: "pixels" }
            }
            Payload::Pixels(image) => {
                let (found, expected) = (image.channels(), self.pixels.channels);
                return Err(decode::Error::Channels { format: "synthetic", found, expected }.into());
            }
        };
        Ok(Decoded { image: self.large_enough(decoded.image)?, ..decoded })
    }

    fn large_enough(&self, image: Image) -> Result<Image> {
        let (width, height) = image.dimensions();
        if width.min(height) < self.min_side.max(1) {
            return Err(Error::TooSmall { width, height, min_side: self.min_side });
        }
        Ok(image)
    }
}

/// An image and information about its file.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The pixels.
    pub image: Image,
    /// Format of the file, or "pixels".
    pub format: &'static str,
    /// The first half of the SHA-256 of the file, or of the pixels if there is no file; equal files
    /// have equal digests.
    pub digest: [u8; 16],
    /// For a file with more than 8 bits per value, the values of each channel at evenly spread
    /// pixels.
    pub values: Option<Vec<Vec<f64>>>,
}

fn digest(bytes: &[u8]) -> [u8; 16] {
    let whole = Sha256::digest(bytes);
    std::array::from_fn(|i| whole[i])
}
