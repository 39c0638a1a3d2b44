//! Options of evaluations on labeled images.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use protocols::Subject;
use protocols::labeled::LabeledImages;

use crate::console::note;
use crate::failure::Result;
use crate::sizes::Sizes;
use crate::weights::run_of;

use super::networks::{Networks, writable};

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
    /// Returns whether sizes or a batch were given.
    pub fn given(&self) -> bool {
        self.sizes.given() || self.batch.is_some()
    }

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
pub struct LabeledArgs {
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

impl LabeledArgs {
    /// Creates the options from networks and images.
    pub fn new(
        networks: Networks,
        embedding: Embedding,
        [train, test]: [String; 2],
        [max_train, max_test]: [Option<NonZeroUsize>; 2],
    ) -> Self {
        Self { networks, embedding, train, test, max_train, max_test }
    }

    /// Returns the images for a network, in the sizes of its run if it has one.
    ///
    /// # Errors
    /// Returns an error if a given size is invalid.
    pub fn images(&self, subject: &Subject) -> Result<LabeledImages> {
        let transform = self.embedding.sizes.transform(&subject.path, &subject.weights.model)?;
        let number = |limit: Option<NonZeroUsize>| limit.map(NonZeroUsize::get);
        let mut images = LabeledImages::new(&self.train, &self.test);
        (images.max_train, images.max_test) = (number(self.max_train), number(self.max_test));
        (images.transform, images.batch) = (Some(transform), number(self.embedding.batch));
        images.features = self.embedding.folder(&subject.path);
        Ok(images)
    }
}
