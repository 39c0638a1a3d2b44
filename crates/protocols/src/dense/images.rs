//! Two sets of images with a class for every pixel.

use std::path::PathBuf;

use data::dense::{DenseOptions, DenseSet};
use eval::segmentation::{DenseData, DenseExtractor, DenseNetwork, Layers};

use crate::error::Result;
use crate::notes::SAME_IMAGES;
use crate::observer::Observer;
use crate::subject::Subject;

/// A folder of images and one of their label images, which have the same names. Both may be folders
/// in a tar file, such as `pack.tar/train/images`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DenseFolder {
    /// The images.
    pub images: PathBuf,
    /// Their label images (PNG).
    pub labels: PathBuf,
    /// File with the names of the images to use, one per line; `None` = all.
    pub list: Option<PathBuf>,
}

/// Images with a class for every pixel, to learn from and to segment.
#[derive(Debug, Clone)]
pub struct DenseImages {
    /// Images to learn from.
    pub train: DenseFolder,
    /// Images to segment.
    pub test: DenseFolder,
    /// The meaning of label values, such as that of a [`Preset`](data::dense::Preset). Its list and
    /// pixel format have no effect.
    pub options: DenseOptions,
    /// The same in words, for the record.
    pub meaning: String,
    /// Maximum number of images to learn from, spread evenly over the set; `None` = all.
    pub max_train: Option<usize>,
    /// Maximum number of images to segment, spread evenly over the set; `None` = all.
    pub max_test: Option<usize>,
    /// Threads that decode images; `None` = one per core.
    pub workers: Option<usize>,
}

/// The opened sets.
pub(super) struct DenseSets {
    /// Images to learn from.
    pub(super) train: DenseSet,
    /// Images to segment.
    pub(super) test: DenseSet,
}

impl DenseImages {
    /// Returns all images of two folders. `meaning` describes `options`, the meaning of label
    /// values, in words.
    pub fn new(
        train: DenseFolder,
        test: DenseFolder,
        options: DenseOptions,
        meaning: impl Into<String>,
    ) -> Self {
        let (max_train, max_test, workers) = (None, None, None);
        Self { train, test, options, meaning: meaning.into(), max_train, max_test, workers }
    }

    /// Checks that the folders can be opened.
    ///
    /// # Errors
    /// Returns an error that names what cannot be read.
    pub fn check(&self) -> Result<()> {
        for folder in [&self.train, &self.test] {
            DenseSet::open(&folder.images, &folder.labels, self.options_of(folder))?;
        }
        Ok(())
    }

    fn options_of(&self, folder: &DenseFolder) -> DenseOptions {
        let mut options = self.options.clone();
        options.list.clone_from(&folder.list);
        options
    }

    /// Opens both sets in the pixel format of the network.
    pub(super) fn open(&self, subject: &Subject, observer: &dyn Observer) -> Result<DenseSets> {
        let set = |folder: &DenseFolder| -> Result<DenseSet> {
            let mut options = self.options_of(folder);
            options.pixels = subject.pixels();
            let set = DenseSet::open(&folder.images, &folder.labels, options)?;
            set.notices().iter().for_each(|text| observer.note(text));
            Ok(set)
        };
        let sets = DenseSets { train: set(&self.train)?, test: set(&self.test)? };
        if sets.train.fingerprint() == sets.test.fingerprint() {
            observer.note(&format!("warning: {SAME_IMAGES}"));
        }
        Ok(sets)
    }

    /// Returns both sets with their limits: the images to learn from, then those to segment.
    pub(super) fn data<'a>(&self, sets: &'a DenseSets) -> [DenseData<'a>; 2] {
        let of = |set, limit| DenseData { set, limit, workers: self.workers };
        [of(&sets.train, self.max_train), of(&sets.test, self.max_test)]
    }
}

/// Returns the side of squares of whole patches that is nearest to `side`.
pub(super) fn whole_patches(subject: &Subject, side: u32) -> u32 {
    dense_network(subject, &subject.weights.backbone, Layers::Last(1)).whole_patches(side)
}

/// Returns `network` as one that outputs the patch tokens of the given blocks.
pub(super) fn dense_network<'a>(
    subject: &'a Subject,
    network: &'a dyn DenseExtractor,
    layers: Layers,
) -> DenseNetwork<'a> {
    DenseNetwork { frozen: subject.frozen(network), layers, class_token: false }
}
