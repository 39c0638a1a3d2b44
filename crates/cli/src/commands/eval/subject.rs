//! What an evaluation on labeled images takes: networks, and two sets of images.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use data::Dataset;
use eval::record::{DataUsed, Record};
use eval::store::{FeatureStore, ImageFeature, ImageFeatures, Network};
use eval::{ExtractOptions, FeatureSet, open_labeled};
use simdino::weights::data_config;

use crate::console::{note, progress};
use crate::failure::Result;

use super::networks::{Networks, Opened};

/// Options of evaluations on labeled images.
#[derive(Debug, clap::Args)]
pub struct Subject {
    #[command(flatten)]
    pub networks: Networks,
    /// Labeled images to learn from: folder, list, or shards
    #[arg(long, value_name = "PATH")]
    train: String,
    /// Labeled images to classify
    #[arg(long, value_name = "PATH")]
    test: String,
    /// Most images used of the first set; all if it is not given
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Most images used of the second set; all if it is not given
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
}

/// Both sets.
pub struct Sets {
    pub train: Arc<Dataset>,
    pub test: Arc<Dataset>,
}

impl Subject {
    /// Opens both sets, as the network reads images, and says what is ignored.
    ///
    /// # Errors
    /// A set cannot be opened.
    pub fn sets(&self, opened: &Opened) -> Result<Sets> {
        let config = data_config(&opened.weights, "");
        let open = |path: &String| -> Result<Arc<Dataset>> {
            let set = open_labeled(path, &config)?;
            set.notices().sentences_about(path).iter().for_each(|text| note(text));
            Ok(set)
        };
        Ok(Sets { train: open(&self.train)?, test: open(&self.test)? })
    }

    /// Most images of both sets.
    pub fn limits(&self) -> [Option<usize>; 2] {
        [self.max_train, self.max_test].map(|limit| limit.map(NonZeroUsize::get))
    }

    /// Features of both sets, from the folder of features as far as they are there.
    ///
    /// # Errors
    /// Images or a file cannot be read, or the network does not take them.
    pub fn features(
        &self,
        opened: &Opened,
        network: Network<'_>,
        sets: &Sets,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<[ImageFeatures; 2]> {
        let folder = self.networks.folder_of_features(&opened.path);
        let store = folder.map_or_else(FeatureStore::default, FeatureStore::in_folder);
        let of = |set: &Arc<Dataset>, limit| -> Result<ImageFeatures> {
            let mut options =
                ExtractOptions::new(opened.transform, opened.weights.normalize.clone());
            (options.device, options.limit) = (opened.device, limit);
            let batch = self.networks.batch.map(NonZeroUsize::get);
            options.batch = batch.unwrap_or_else(|| ExtractOptions::batch_for(opened.device));
            options.precision = self.networks.precision.into();
            let bar = progress(set.len(), "images embedded");
            let features = store.features(network, set, &options, wanted, &mut |done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })?;
            bar.finish_and_clear();
            for image in &features.broken {
                note(&format!("warning: skipped {}: {}", image.name, image.reason));
            }
            Ok(features)
        };
        let [max_train, max_test] = self.limits();
        Ok([of(&sets.train, max_train)?, of(&sets.test, max_test)?])
    }

    /// Class tokens of the last block of both sets.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub fn class_tokens(
        &self,
        opened: &Opened,
        network: Network<'_>,
        sets: &Sets,
    ) -> Result<[FeatureSet; 2]> {
        const LAST: ImageFeature = ImageFeature::Cls(1);
        let [train, test] = self.features(opened, network, sets, &BTreeSet::from([LAST]))?;
        Ok([train.side_by_side(&[LAST])?, test.side_by_side(&[LAST])?])
    }

    /// Says in a record which images were used: `counts` of them, of `classes`.
    pub fn describe(&self, record: &mut Record, sets: &Sets, counts: [usize; 2], classes: usize) {
        for (name, limit) in ["max_train", "max_test"].into_iter().zip(self.limits()) {
            if let Some(limit) = limit {
                record.set(name, limit);
            }
        }
        let [train, test] = counts;
        record.data = vec![
            DataUsed::new("train", &self.train, &sets.train, train, Some(classes)),
            DataUsed::new("test", &self.test, &sets.test, test, None),
        ];
    }
}
