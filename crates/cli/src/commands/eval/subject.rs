//! What an evaluation on labeled images takes: networks, and two sets of images.

use std::cell::OnceCell;
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

use super::networks::{Networks, Opened, Untrained};

/// The class token of the last block.
pub const LAST: ImageFeature = ImageFeature::Cls(1);

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

/// A network with the features of both sets, which all protocols share.
pub struct Task<'a> {
    pub subject: &'a Subject,
    pub opened: &'a Opened,
    pub train: Arc<Dataset>,
    pub test: Arc<Dataset>,
    store: FeatureStore,
    wanted: BTreeSet<ImageFeature>,
    trained: [ImageFeatures; 2],
    untrained: OnceCell<(Untrained, [ImageFeatures; 2])>,
}

impl Subject {
    /// These networks and images.
    pub fn new(
        networks: Networks,
        [train, test]: [String; 2],
        [max_train, max_test]: [Option<NonZeroUsize>; 2],
    ) -> Self {
        Self { networks, train, test, max_train, max_test }
    }

    /// Opens both sets as the network reads images, says what is ignored, and computes the features of
    /// the network, as far as they are not kept.
    ///
    /// # Errors
    /// A set cannot be opened, images or a file cannot be read, or the network does not take them.
    pub fn task<'a>(
        &'a self,
        opened: &'a Opened,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<Task<'a>> {
        let config = data_config(&opened.weights, "");
        let open = |path: &String| -> Result<Arc<Dataset>> {
            let set = open_labeled(path, &config)?;
            set.notices().sentences_about(path).iter().for_each(|text| note(text));
            Ok(set)
        };
        let (train, test) = (open(&self.train)?, open(&self.test)?);
        let folder = self.networks.folder_of_features(&opened.path);
        let store = folder.map_or_else(FeatureStore::default, FeatureStore::in_folder);
        let trained = self.embed(opened, opened.network(), [&train, &test], &store, wanted)?;
        for image in trained.iter().flat_map(|set| &set.broken) {
            note(&format!("warning: skipped {}: {}", image.name, image.reason));
        }
        let (wanted, untrained) = (wanted.clone(), OnceCell::new());
        Ok(Task { subject: self, opened, train, test, store, wanted, trained, untrained })
    }

    /// Most images of both sets.
    pub fn limits(&self) -> [Option<usize>; 2] {
        [self.max_train, self.max_test].map(|limit| limit.map(NonZeroUsize::get))
    }

    fn embed(
        &self,
        opened: &Opened,
        network: Network<'_>,
        sets: [&Arc<Dataset>; 2],
        store: &FeatureStore,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<[ImageFeatures; 2]> {
        let of = |set: &Arc<Dataset>, limit| -> Result<ImageFeatures> {
            let options = self.extract_options(opened, limit);
            let bar = progress(set.len(), "images embedded");
            let features = store.features(network, set, &options, wanted, &mut |done, total| {
                bar.set_length(total as u64);
                bar.set_position(done as u64);
            })?;
            bar.finish_and_clear();
            Ok(features)
        };
        let [max_train, max_test] = self.limits();
        Ok([of(sets[0], max_train)?, of(sets[1], max_test)?])
    }

    /// How images are read for a network.
    pub fn extract_options(&self, opened: &Opened, limit: Option<usize>) -> ExtractOptions {
        let mut options = ExtractOptions::new(opened.transform, opened.weights.normalize.clone());
        (options.device, options.limit) = (opened.device, limit);
        let batch = self.networks.batch.map(NonZeroUsize::get);
        options.batch = batch.unwrap_or_else(|| ExtractOptions::batch_for(opened.device));
        options.precision = self.networks.precision;
        options
    }
}

impl Task<'_> {
    /// Features of the network side by side, of both sets.
    ///
    /// # Errors
    /// One of them was not wanted.
    pub fn trained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.trained, features)
    }

    /// The same of the network untrained, which are computed when they are first needed.
    ///
    /// # Errors
    /// As [`Subject::task`].
    pub fn untrained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.untrained_parts()?.1, features)
    }

    /// The network untrained.
    ///
    /// # Errors
    /// As [`Subject::task`].
    pub fn untrained_network(&self) -> Result<Network<'_>> {
        Ok(self.untrained_parts()?.0.network())
    }

    fn untrained_parts(&self) -> Result<&(Untrained, [ImageFeatures; 2])> {
        if let Some(parts) = self.untrained.get() {
            return Ok(parts);
        }
        let network = self.opened.untrained()?;
        let sets = [&self.train, &self.test];
        let Task { subject, opened, store, wanted, .. } = self;
        let features = subject.embed(opened, network.network(), sets, store, wanted)?;
        Ok(self.untrained.get_or_init(|| (network, features)))
    }

    /// Index in the train set of each of its readable images.
    pub fn train_indices(&self) -> &[usize] {
        &self.trained[0].indices
    }

    /// A record with the images, `counts` of them of `classes`, and the spread of the class tokens.
    ///
    /// # Errors
    /// Class tokens were not wanted, or libtorch fails.
    pub fn record(&self, protocol: &str, counts: [usize; 2], classes: usize) -> Result<Record> {
        let mut record = self.opened.record(protocol);
        for (name, limit) in ["max_train", "max_test"].into_iter().zip(self.subject.limits()) {
            if let Some(limit) = limit {
                record.set(name, limit);
            }
        }
        let [train, test] = counts;
        record.data = vec![
            DataUsed::new("train", &self.subject.train, &self.train, train, Some(classes)),
            DataUsed::new("test", &self.subject.test, &self.test, test, None),
        ];
        record.spread(&self.trained[0].side_by_side(&[LAST])?)?;
        Ok(record)
    }

    /// What identifies the features of a network, in words.
    pub fn identity(&self, network: Network<'_>) -> String {
        let sets = [&self.train, &self.test].map(|set| set.fingerprint());
        format!(
            "{} {sets:?} {:?} {:?} {}",
            network.fingerprint,
            self.subject.limits(),
            self.opened.transform,
            self.subject.networks.precision
        )
    }
}

fn side_by_side(sets: &[ImageFeatures; 2], features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
    Ok([sets[0].side_by_side(features)?, sets[1].side_by_side(features)?])
}
