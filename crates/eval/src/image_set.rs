//! Sets of images whose features several processes extract together.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use data::Dataset;
use tch::{Device, Kind, Tensor};
use torch_ext::Collective;

use crate::baseline::{PixelOptions, raw_pixels, standardize};
use crate::error::Result;
use crate::features::{ExtractOptions, FeatureExtractor, FeatureSet, extract_chosen};
use crate::gather::{features, share};
use crate::labeled::comparable;
use crate::subset::evenly_spaced;

/// A subset of a dataset's images, spread evenly over it.
#[derive(Debug, Clone)]
pub struct ImageSet {
    dataset: Arc<Dataset>,
    chosen: Vec<usize>,
}

impl ImageSet {
    /// Chooses at most `limit` images of a dataset; `None` = all.
    pub fn new(dataset: Arc<Dataset>, limit: Option<usize>) -> Self {
        let chosen = evenly_spaced(dataset.len(), limit);
        Self { dataset, chosen }
    }

    /// Returns the number of images.
    pub fn len(&self) -> usize {
        self.chosen.len()
    }

    /// Returns `true` if there are no images.
    pub fn is_empty(&self) -> bool {
        self.chosen.is_empty()
    }

    /// Returns the number of images that have a label.
    pub fn num_labeled(&self) -> usize {
        self.chosen.iter().filter(|&&index| self.dataset.label(index).is_some()).count()
    }

    /// Stops waiting for images as soon as `flag` is set.
    pub fn stop_on(&self, flag: &Arc<AtomicBool>) {
        self.dataset.stop_on(Arc::clone(flag));
    }

    /// Computes the features of all images, in order. Each process extracts its share, and all of
    /// them get all features, without names of images if there are several processes. The `limit`
    /// of the options has no effect.
    ///
    /// # Errors
    /// Returns an error in every process if one fails, or if no image is readable.
    pub fn features(
        &self,
        network: &dyn FeatureExtractor,
        options: &ExtractOptions,
        processes: &dyn Collective,
    ) -> Result<FeatureSet> {
        self.shared(processes, |chosen| {
            extract_chosen(&self.dataset, chosen, network, options, &mut |_, _| ())
        })
    }

    fn shared(
        &self,
        processes: &dyn Collective,
        extract: impl Fn(Vec<usize>) -> Result<FeatureSet>,
    ) -> Result<FeatureSet> {
        let own = extract(self.chosen[share(self.chosen.len(), processes)].to_vec());
        features(own, self.dataset.class_names(), processes)
    }

    /// Returns the labels with placeholder features.
    fn labels_alone(&self) -> FeatureSet {
        let rows = Tensor::zeros([self.chosen.len() as i64, 1], (Kind::Float, Device::Cpu));
        let labels = self.chosen.iter().map(|&index| self.dataset.label(index)).collect();
        let class_names = self.dataset.class_names().to_vec();
        FeatureSet { class_names, ..FeatureSet::new(rows, labels) }
    }
}

/// Returns the pixels of the training and test images, standardized by the training images, and
/// shared like [`ImageSet::features`].
///
/// # Errors
/// Fails like [`ImageSet::features`].
pub fn pixels_shared(
    [train, test]: [&ImageSet; 2],
    options: &PixelOptions,
    processes: &dyn Collective,
) -> Result<[FeatureSet; 2]> {
    let raw =
        |set: &ImageSet| set.shared(processes, |chosen| raw_pixels(&set.dataset, chosen, options));
    let (mut train, mut test) = (raw(train)?, raw(test)?);
    standardize(&mut train, &mut test);
    Ok([train, test])
}

/// Checks, without reading images, that a classifier that learns from `train` can be tested on
/// `test`. Returns notes on how to read its accuracy.
///
/// # Errors
/// Returns an error if a set has no labels, all training images belong to one class, or the
/// training set lacks classes of the test set.
pub fn check_labels(train: &ImageSet, test: &ImageSet) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    comparable(&train.labels_alone(), &test.labels_alone(), &mut notes)?;
    Ok(notes)
}
