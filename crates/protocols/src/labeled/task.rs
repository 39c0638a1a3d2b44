//! A network with its features of both sets, which several protocols can share.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use eval::baseline::{PixelOptions, pixel_features};
use eval::record::{DataUsed, Record};
use eval::spectrum::Spread;
use eval::store::{ImageFeature, ImageFeatures, Network};
use eval::{ExtractOptions, FeatureSet, SUBSET_VERSION};

use super::images::{LAST, LabeledImages};
use crate::error::Result;
use crate::notes::{SAME_IMAGES, unreadable};
use crate::observer::Observer;
use crate::subject::{Subject, Untrained};

/// A network with its features of both sets. Those of the same network untrained are computed when
/// they are first needed.
pub struct LabeledTask<'a> {
    /// The images.
    pub images: &'a LabeledImages,
    /// The network.
    pub subject: &'a Subject,
    /// How features are extracted, without the limits on the number of images.
    pub extract: ExtractOptions,
    /// Receives notes and progress.
    pub observer: &'a dyn Observer,
    sets: [Arc<Dataset>; 2],
    wanted: BTreeSet<ImageFeature>,
    trained: [ImageFeatures; 2],
    untrained: OnceCell<(Untrained, [ImageFeatures; 2])>,
}

impl std::fmt::Debug for LabeledTask<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = f.debug_struct("LabeledTask");
        text.field("images", self.images).field("subject", self.subject).finish_non_exhaustive()
    }
}

impl<'a> LabeledTask<'a> {
    /// Opens both sets in the pixel format of the network, and computes the `wanted` features that
    /// are not kept yet.
    ///
    /// # Errors
    /// Returns an error if a set cannot be opened, its labels cannot be used, images or a file of
    /// features cannot be read, or the network does not accept the images.
    pub fn open(
        images: &'a LabeledImages,
        subject: &'a Subject,
        wanted: &BTreeSet<ImageFeature>,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        images.check()?;
        let sets = images.sets(subject)?;
        let paths = [&images.train, &images.test];
        for (path, set) in paths.into_iter().zip(&sets) {
            set.notices().sentences_about(path).iter().for_each(|text| observer.note(text));
        }
        if sets[0].fingerprint() == sets[1].fingerprint() {
            observer.note(&format!("warning: {SAME_IMAGES}"));
        }
        images.check_labels(&sets)?;
        let extract = images.extract_options(subject);
        let trained = images.embed(subject.network(), &sets, &extract, wanted, observer)?;
        for (path, set) in paths.into_iter().zip(&trained) {
            observer.skipped(path, &set.broken);
        }
        let (wanted, untrained) = (wanted.clone(), OnceCell::new());
        Ok(Self { images, subject, extract, observer, sets, wanted, trained, untrained })
    }

    /// Returns the images to learn from.
    pub fn train(&self) -> &Arc<Dataset> {
        &self.sets[0]
    }

    /// Returns the concatenated features of the network, of both sets.
    ///
    /// # Errors
    /// Returns an error if one of the features was not in `wanted` when the task was created.
    pub fn trained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.trained, features)
    }

    /// Returns the concatenated features of the same network untrained.
    ///
    /// # Errors
    /// Same as for [`Self::open`] and [`Self::trained`].
    pub fn untrained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.untrained_parts()?.1, features)
    }

    /// Returns the same network untrained.
    ///
    /// # Errors
    /// Same as for [`Self::open`].
    pub fn untrained_network(&self) -> Result<Network<'_>> {
        Ok(self.untrained_parts()?.0.network())
    }

    fn untrained_parts(&self) -> Result<&(Untrained, [ImageFeatures; 2])> {
        if let Some(parts) = self.untrained.get() {
            return Ok(parts);
        }
        let random = self.subject.untrained()?;
        let Self { images, extract, sets, wanted, observer, .. } = self;
        let features = images.embed(random.network(), sets, extract, wanted, *observer)?;
        Ok(self.untrained.get_or_init(|| (random, features)))
    }

    /// Returns the raw pixels of both sets, which need no network.
    ///
    /// # Errors
    /// Returns an error if no image is readable.
    pub fn pixels(&self) -> Result<[FeatureSet; 2]> {
        let (workers, limits) = (self.images.workers, self.images.limits());
        let options = PixelOptions { workers, limits, ..PixelOptions::default() };
        let [train, test] = &self.sets;
        let (train, test) = pixel_features(train, test, &options)?;
        Ok([train, test])
    }

    /// Returns the indices of the readable images in the train set.
    pub fn train_indices(&self) -> &[usize] {
        &self.trained[0].indices
    }

    /// Creates a record without scores, with the images and the spread of the class tokens.
    /// `counts` are the numbers of train and test images, and `classes` is the number of classes.
    ///
    /// # Errors
    /// Returns an error if [`LAST`] was not in `wanted` or a libtorch operation fails.
    pub fn record(&self, protocol: &str, counts: [usize; 2], classes: usize) -> Result<Record> {
        let mut record = self.subject.record(protocol);
        let EvalTransform { resize, crop } = self.extract.transform;
        (record.resize, record.crop) = (Some(resize), Some(crop));
        record.limits(self.images.limits());
        let ([train, test], images) = (&self.sets, self.images);
        record.data = vec![
            DataUsed::new("train", &images.train, train, counts[0], Some(classes)),
            DataUsed::new("test", &images.test, test, counts[1], None),
        ];
        record.spread(Spread::of(&self.trained[0].side_by_side(&[LAST])?.features)?);
        if train.fingerprint() == test.fingerprint() {
            record.note(SAME_IMAGES);
        }
        for (role, set) in ["training", "test"].into_iter().zip(&self.trained) {
            unreadable(role, &set.broken).iter().for_each(|text| record.note(text));
        }
        Ok(record)
    }

    /// Returns a string that identifies the features of a network: it changes with the network, the
    /// images, their size, and the precision.
    pub fn identity(&self, network: Network<'_>) -> String {
        let sets = [0, 1].map(|set| (self.sets[set].fingerprint(), self.sets[set].sample()));
        format!(
            "{} {sets:?} {SUBSET_VERSION} {:?} {:?} {}",
            network.fingerprint,
            self.images.limits(),
            self.extract.transform,
            self.extract.precision
        )
    }
}

fn side_by_side(sets: &[ImageFeatures; 2], features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
    Ok([sets[0].side_by_side(features)?, sets[1].side_by_side(features)?])
}
