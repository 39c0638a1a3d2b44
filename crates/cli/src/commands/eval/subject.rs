//! What an evaluation on labeled images takes: networks, and two sets of images.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use eval::record::{DataUsed, Record};
use eval::store::{FeatureStore, ImageFeature, ImageFeatures, Network};
use eval::{ExtractOptions, FeatureSet, SUBSET_VERSION, open_labeled};
use simdino::weights::data_config;

use crate::console::{name_skipped, note, progress};
use crate::failure::Result;
use crate::sizes::Sizes;
use crate::weights::run_of;

use super::networks::{Networks, Opened, Untrained, writable};

/// The class token of the last block.
pub const LAST: ImageFeature = ImageFeature::Cls(1);

/// How whole images become features.
#[derive(Debug, Clone, clap::Args)]
pub struct Embedding {
    #[command(flatten)]
    sizes: Sizes,
    /// Images per forward pass; by default 64 on a CPU and 256 on a GPU
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Folder that keeps features for the next evaluation; by default the folder `features` of a run,
    /// and none for other weights
    #[arg(long, value_name = "FOLDER")]
    features: Option<PathBuf>,
}

impl Embedding {
    /// Where features of the network at `path` are kept. Those of a run that cannot be written to, such as
    /// somebody else's, are not kept.
    pub fn folder(&self, path: &Path) -> Option<PathBuf> {
        self.features.clone().or_else(|| {
            let folder = run_of(path)?.join("features");
            let writable = writable(&folder).inspect_err(|error| {
                note(&format!(
                    "features are not kept, because {} cannot be written to ({error}); --features FOLDER keeps \
                     them elsewhere",
                    folder.display()
                ));
            });
            writable.ok().map(|()| folder)
        })
    }
}

/// Options of evaluations on labeled images.
#[derive(Debug, clap::Args)]
pub struct Subject {
    #[command(flatten)]
    pub networks: Networks,
    #[command(flatten)]
    pub embedding: Embedding,
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
    /// How images are read, without a limit.
    pub extract: ExtractOptions,
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
        embedding: Embedding,
        [train, test]: [String; 2],
        [max_train, max_test]: [Option<NonZeroUsize>; 2],
    ) -> Self {
        Self { networks, embedding, train, test, max_train, max_test }
    }

    /// Opens both sets as the network reads images, says what is ignored, and computes the features of
    /// the network, as far as they are not kept.
    ///
    /// # Errors
    /// Sizes that were typed cannot be, a set cannot be opened, images or a file cannot be read, or the
    /// network does not take them.
    pub fn task<'a>(
        &'a self,
        opened: &'a Opened,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<Task<'a>> {
        let extract = self.extract_options(opened)?;
        let config = data_config(&opened.weights, "");
        let open = |path: &String| -> Result<Arc<Dataset>> {
            let set = open_labeled(path, &config)?;
            set.notices().sentences_about(path).iter().for_each(|text| note(text));
            Ok(set)
        };
        let (train, test) = (open(&self.train)?, open(&self.test)?);
        let folder = self.embedding.folder(&opened.path);
        let store = folder.map_or_else(FeatureStore::default, FeatureStore::in_folder);
        let trained = self.embed(opened.network(), [&train, &test], &extract, &store, wanted)?;
        for (path, set) in [&self.train, &self.test].into_iter().zip(&trained) {
            name_skipped(path, &set.broken);
        }
        let (wanted, untrained) = (wanted.clone(), OnceCell::new());
        Ok(Task { subject: self, opened, extract, train, test, store, wanted, trained, untrained })
    }

    /// Most images of both sets.
    pub fn limits(&self) -> [Option<usize>; 2] {
        [self.max_train, self.max_test].map(|limit| limit.map(NonZeroUsize::get))
    }

    fn embed(
        &self,
        network: Network<'_>,
        sets: [&Arc<Dataset>; 2],
        extract: &ExtractOptions,
        store: &FeatureStore,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<[ImageFeatures; 2]> {
        let of = |set: &Arc<Dataset>, limit| -> Result<ImageFeatures> {
            let mut options = extract.clone();
            options.limit = limit;
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

    fn extract_options(&self, opened: &Opened) -> Result<ExtractOptions> {
        let transform = self.embedding.sizes.transform(&opened.path, &opened.weights.model)?;
        let mut options = ExtractOptions::new(transform, opened.weights.normalize.clone());
        options.device = opened.device;
        let batch = self.embedding.batch.map(NonZeroUsize::get);
        options.batch = batch.unwrap_or_else(|| ExtractOptions::batch_for(opened.device));
        options.precision = self.networks.precision;
        Ok(options)
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
        let Task { subject, extract, store, wanted, .. } = self;
        let features = subject.embed(network.network(), sets, extract, store, wanted)?;
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
        let EvalTransform { resize, crop } = self.extract.transform;
        (record.resize, record.crop) = (Some(resize), Some(crop));
        record.limits(self.subject.limits());
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
            "{} {sets:?} {SUBSET_VERSION} {:?} {:?} {}",
            network.fingerprint,
            self.subject.limits(),
            self.extract.transform,
            self.extract.precision
        )
    }
}

fn side_by_side(sets: &[ImageFeatures; 2], features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
    Ok([sets[0].side_by_side(features)?, sets[1].side_by_side(features)?])
}
