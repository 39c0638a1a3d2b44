//! The images of a labeled protocol.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use eval::store::{FeatureStore, ImageFeature, ImageFeatures, Network};
use eval::{Error as EvalError, ExtractOptions, ImageSet, check_labels, open_labeled};
use model::ModelConfig;

use crate::error::{Error, Result};
use crate::observer::{Counter, Observer};
use crate::subject::Subject;

/// The class token of the last block.
pub const LAST: ImageFeature = ImageFeature::Cls(1);

/// Side of the center crop in the published protocols of DINO and DINOv2, which follows a resize to
/// 256. It does not depend on the image size that the positional embedding was made for.
const CROP: i64 = 224;

/// Labeled images to learn from and to classify, and how their features are extracted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabeledImages {
    /// Path of the images to learn from: a folder, list, or shards.
    pub train: String,
    /// Path of the images to classify.
    pub test: String,
    /// Maximum number of images to learn from, spread evenly over the set; `None` = all.
    pub max_train: Option<usize>,
    /// Maximum number of images to classify, spread evenly over the set; `None` = all.
    pub max_test: Option<usize>,
    /// How images are resized and cropped; `None` = as in the published protocols, see
    /// [`Self::published_transform`].
    pub transform: Option<EvalTransform>,
    /// Images per forward pass; `None` = 64 on a CPU and 256 on a GPU.
    pub batch: Option<usize>,
    /// Threads that decode images; `None` = one per core.
    pub workers: Option<usize>,
    /// Folder that keeps features for the next protocol or network; `None` = they are not kept.
    pub features: Option<PathBuf>,
}

impl LabeledImages {
    /// Returns all images of two sets, whose features are not kept.
    pub fn new(train: impl Into<String>, test: impl Into<String>) -> Self {
        Self {
            train: train.into(),
            test: test.into(),
            max_train: None,
            max_test: None,
            transform: None,
            batch: None,
            workers: None,
            features: None,
        }
    }

    /// Returns the published transform for a network: a center crop of 224 pixels after a resize of
    /// the shorter side to 256, or smaller if the network was made for smaller images.
    pub fn published_transform(model: &ModelConfig) -> EvalTransform {
        let side = model.image_size.min(CROP.max(model.patch_size));
        let crop = side / model.patch_size * model.patch_size;
        EvalTransform::for_crop(u32::try_from(crop).unwrap_or(u32::MAX))
    }

    /// Checks that the folder for features is not a file.
    ///
    /// # Errors
    /// Returns an error that names the folder.
    pub fn check(&self) -> Result<()> {
        match self.features.as_ref().filter(|folder| folder.is_file()) {
            None => Ok(()),
            Some(file) => {
                let problem = format!("{} is a file, not a folder", file.display());
                Err(Error::Setting { name: "features", problem })
            }
        }
    }

    /// Returns the maximum numbers of images of the train and test sets.
    pub(super) fn limits(&self) -> [Option<usize>; 2] {
        [self.max_train, self.max_test]
    }

    /// Computes the share of a process, `(rank, size)`, of the features that are not kept yet, and,
    /// with `untrained`, of those of the same network untrained. Once all processes have done so,
    /// [`LabeledTask`](super::LabeledTask) finds them in the folder, which all must see.
    ///
    /// # Errors
    /// Returns an error if there is no folder that keeps features, or if they cannot be computed or
    /// written.
    pub fn fill(
        &self,
        subject: &Subject,
        wanted: &BTreeSet<ImageFeature>,
        untrained: bool,
        share: (usize, usize),
    ) -> Result<()> {
        if self.features.is_none() {
            let problem =
                "several processes need a folder for features, on a disk that all of them share";
            return Err(Error::Setting { name: "features", problem: problem.to_owned() });
        }
        let store = self.store();
        let random = if untrained { Some(subject.untrained()?) } else { None };
        let mut extract = self.extract_options(subject);
        for (set, limit) in self.sets(subject)?.iter().zip(self.limits()) {
            extract.limit = limit;
            store.fill(subject.network(), set, &extract, wanted, share)?;
            if let Some(random) = &random {
                store.fill(random.network(), set, &extract, wanted, share)?;
            }
        }
        Ok(())
    }

    /// Opens both sets in the pixel format of the network.
    pub(super) fn sets(&self, subject: &Subject) -> Result<[Arc<Dataset>; 2]> {
        let config = subject.data_config();
        Ok([open_labeled(&self.train, &config)?, open_labeled(&self.test, &config)?])
    }

    /// Rejects labels that cannot be learned from or tested on, before any image is read.
    pub(super) fn check_labels(&self, [train, test]: &[Arc<Dataset>; 2]) -> Result<()> {
        let known = ImageSet::new(Arc::clone(train), self.max_train);
        let asked = ImageSet::new(Arc::clone(test), self.max_test);
        check_labels(&known, &asked).map(|_| ()).map_err(|source| {
            let (set, path) = match source {
                EvalError::Unlabeled { set: "test" } | EvalError::ClassMismatch { .. } => {
                    ("test", self.test.clone())
                }
                _ => ("train", self.train.clone()),
            };
            Error::Labels { set, path, source: Box::new(source) }
        })
    }

    /// Returns the store of features.
    fn store(&self) -> FeatureStore {
        self.features.clone().map_or_else(FeatureStore::default, FeatureStore::in_folder)
    }

    /// Computes the features of both sets that are not kept yet.
    pub(super) fn embed(
        &self,
        network: Network<'_>,
        sets: &[Arc<Dataset>; 2],
        extract: &ExtractOptions,
        wanted: &BTreeSet<ImageFeature>,
        observer: &dyn Observer,
    ) -> Result<[ImageFeatures; 2]> {
        let store = self.store();
        let of = |task, set: &Arc<Dataset>, limit| -> Result<ImageFeatures> {
            let mut options = extract.clone();
            options.limit = limit;
            let mut counter = Counter::new(observer, task, set.len());
            let features = store.features(network, set, &options, wanted, &mut |done, total| {
                counter.set_of(done, total);
            })?;
            counter.finish();
            Ok(features)
        };
        let [train, test] = sets;
        let train = of("training images embedded", train, self.max_train)?;
        Ok([train, of("test images embedded", test, self.max_test)?])
    }

    /// Returns how features are extracted, without the limits on the number of images.
    pub(super) fn extract_options(&self, subject: &Subject) -> ExtractOptions {
        let model = &subject.weights.model;
        let transform = self.transform.unwrap_or_else(|| Self::published_transform(model));
        let mut options = ExtractOptions::new(transform, subject.weights.normalize.clone());
        options.device = subject.device;
        options.batch = self.batch.unwrap_or_else(|| ExtractOptions::batch_for(subject.device));
        (options.precision, options.workers) = (subject.precision, self.workers);
        options
    }
}
