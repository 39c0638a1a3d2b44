//! The input of an evaluation on labeled images: networks, and two sets of images.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use augment::EvalTransform;
use data::Dataset;
use eval::record::{DataUsed, Record};
use eval::spectrum::Spread;
use eval::store::{FeatureStore, ImageFeature, ImageFeatures, Network};
use eval::{
    Error, ExtractOptions, FeatureSet, ImageSet, SUBSET_VERSION, check_labels, open_labeled,
};
use simdino::weights::data_config;

use crate::console::{name_skipped, note, progress};
use crate::failure::{Failure, Result};
use crate::sizes::Sizes;
use crate::weights::run_of;

use super::networks::{Networks, Opened, Untrained, writable};

/// Warns that a network is tested on the images that a classifier learned from.
pub fn warn_same_images() {
    note(
        "warning: the training images are also the test images, so these numbers do not show what \
         the network is worth",
    );
}

/// What to do if several processes have no folder to share features in.
pub const NO_FOLDER: &str = "--features FOLDER: several processes need a folder for features, on a \
                             disk that all of them share";

/// The class token of the last block.
pub const LAST: ImageFeature = ImageFeature::Cls(1);

/// Options of extracting one feature per image.
#[derive(Debug, Clone, clap::Args)]
pub struct Embedding {
    #[command(flatten)]
    sizes: Sizes,
    /// Images per forward pass; by default 64 on a CPU and 256 on a GPU
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Folder that keeps features for the next evaluation; by default the folder `features` of a
    /// run, and none for other weights
    #[arg(long, value_name = "FOLDER")]
    pub features: Option<PathBuf>,
}

impl Embedding {
    /// Returns the folder that keeps the features of the network at `path`. Features of a run whose
    /// folder is not writable, such as that of another user, are not kept.
    pub fn folder(&self, path: &Path) -> Option<PathBuf> {
        self.features.clone().or_else(|| {
            let folder = run_of(path)?.join("features");
            let writable = writable(&folder).inspect_err(|error| {
                note(&format!(
                    "features will not be saved, because {} is not writable ({error}); choose \
                     another folder with --features",
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
    /// Maximum number of images to learn from; all by default
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Maximum number of images to classify; all by default
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
}

/// A network with its features of both sets, which all protocols share.
pub struct Task<'a> {
    pub subject: &'a Subject,
    pub opened: &'a Opened,
    /// How features are extracted, without the limits on the number of images.
    pub extract: ExtractOptions,
    pub train: Arc<Dataset>,
    pub test: Arc<Dataset>,
    store: FeatureStore,
    wanted: BTreeSet<ImageFeature>,
    trained: [ImageFeatures; 2],
    untrained: OnceCell<(Untrained, [ImageFeatures; 2])>,
}

impl Subject {
    /// Creates the options from networks and images.
    pub fn new(
        networks: Networks,
        embedding: Embedding,
        [train, test]: [String; 2],
        [max_train, max_test]: [Option<NonZeroUsize>; 2],
    ) -> Self {
        Self { networks, embedding, train, test, max_train, max_test }
    }

    /// Opens both sets in the pixel format of the network, prints what is ignored, and computes the
    /// features that are not kept yet.
    ///
    /// # Errors
    /// Returns an error if a given size is invalid, a set cannot be opened, images or a file of
    /// features cannot be read, or the network does not accept the images.
    pub fn task<'a>(
        &'a self,
        opened: &'a Opened,
        wanted: &BTreeSet<ImageFeature>,
    ) -> Result<Task<'a>> {
        let extract = self.extract_options(opened)?;
        let [train, test] = self.sets(opened)?;
        for (path, set) in [(&self.train, &train), (&self.test, &test)] {
            set.notices().sentences_about(path).iter().for_each(|text| note(text));
        }
        if train.fingerprint() == test.fingerprint() {
            warn_same_images();
        }
        self.check_labels(&train, &test)?;
        let folder = self.embedding.folder(&opened.path);
        if let Some(file) = folder.as_ref().filter(|folder| folder.is_file()) {
            let file = file.display();
            return Err(Failure::usage(format!("--features {file}: is a file, not a folder")));
        }
        let store = folder.map_or_else(FeatureStore::default, FeatureStore::in_folder);
        let trained = self.embed(opened.network(), [&train, &test], &extract, &store, wanted)?;
        for (path, set) in [&self.train, &self.test].into_iter().zip(&trained) {
            name_skipped(path, &set.broken);
        }
        let (wanted, untrained) = (wanted.clone(), OnceCell::new());
        Ok(Task { subject: self, opened, extract, train, test, store, wanted, trained, untrained })
    }

    /// Rejects labels that cannot be learned from or tested on, before any image is read.
    fn check_labels(&self, train: &Arc<Dataset>, test: &Arc<Dataset>) -> Result<()> {
        let [most_train, most_test] = self.limits();
        let known = ImageSet::new(Arc::clone(train), most_train);
        let asked = ImageSet::new(Arc::clone(test), most_test);
        check_labels(&known, &asked).map(|_| ()).map_err(|error| {
            let named = match error {
                Error::Unlabeled { set: "test" } | Error::ClassMismatch { .. } => {
                    format!("--test {}", self.test)
                }
                _ => format!("--train {}", self.train),
            };
            Failure::failed(format!("{named}: {error}"))
        })
    }

    /// Opens both sets in the pixel format of the network.
    fn sets(&self, opened: &Opened) -> Result<[Arc<Dataset>; 2]> {
        let config = data_config(&opened.weights, "");
        Ok([open_labeled(&self.train, &config)?, open_labeled(&self.test, &config)?])
    }

    /// Computes the share of a process, `(rank, size)`, of the features of all networks that are
    /// not kept yet, and, with `untrained`, of the same networks untrained. `workers` is the number
    /// of threads that decode images.
    ///
    /// # Errors
    /// Returns an error if there is no folder that keeps features. Otherwise the same as for
    /// [`Self::task`].
    pub fn fill(
        &self,
        wanted: &BTreeSet<ImageFeature>,
        untrained: bool,
        share: (usize, usize),
        workers: usize,
    ) -> Result<()> {
        self.networks.each(&mut |path, opened| {
            let folder = self.embedding.folder(path).ok_or_else(|| Failure::usage(NO_FOLDER))?;
            let store = FeatureStore::in_folder(folder);
            let random = if untrained { Some(opened.untrained()?) } else { None };
            let mut extract = self.extract_options(opened)?;
            extract.workers = Some(workers);
            for (set, limit) in self.sets(opened)?.iter().zip(self.limits()) {
                extract.limit = limit;
                store.fill(opened.network(), set, &extract, wanted, share)?;
                if let Some(random) = &random {
                    store.fill(random.network(), set, &extract, wanted, share)?;
                }
            }
            Ok(())
        })
    }

    /// Returns the maximum numbers of images of the train and test sets.
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
        options.precision = opened.precision;
        Ok(options)
    }
}

impl Task<'_> {
    /// Returns the concatenated features of the network, of both sets.
    ///
    /// # Errors
    /// Returns an error if one of the features was not in `wanted` when the task was created.
    pub fn trained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.trained, features)
    }

    /// Returns the concatenated features of the same network untrained, which are computed when
    /// they are first needed.
    ///
    /// # Errors
    /// Same as for [`Subject::task`] and [`Self::trained`].
    pub fn untrained(&self, features: &[ImageFeature]) -> Result<[FeatureSet; 2]> {
        side_by_side(&self.untrained_parts()?.1, features)
    }

    /// Returns the same network untrained.
    ///
    /// # Errors
    /// Same as for [`Subject::task`].
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
        let mut record = self.opened.record(protocol);
        let EvalTransform { resize, crop } = self.extract.transform;
        (record.resize, record.crop) = (Some(resize), Some(crop));
        record.limits(self.subject.limits());
        let [train, test] = counts;
        record.data = vec![
            DataUsed::new("train", &self.subject.train, &self.train, train, Some(classes)),
            DataUsed::new("test", &self.subject.test, &self.test, test, None),
        ];
        record.spread(Spread::of(&self.trained[0].side_by_side(&[LAST])?.features)?);
        Ok(record)
    }

    /// Returns a string that identifies the features of a network: it changes with the network, the
    /// images, their size, and the precision.
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
