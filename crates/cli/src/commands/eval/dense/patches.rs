//! `simdino eval segment-knn`: segmentation by k-NN and logistic regression on patches.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;
use eval::segmentation::knn::PatchConfig;
use protocols::dense::{PatchClassifier, SegmentPatches};

use crate::commands::eval::numbers::{at_least_one, positive};
use crate::commands::eval::outcome::{Measured, Outcome};
use crate::commands::eval::terminal::Terminal;
use crate::failure::Result;

use super::args::DenseArgs;
use super::shared;

/// Arguments of `simdino eval segment-knn`.
#[derive(Debug, clap::Args)]
pub struct PatchArgs {
    #[command(flatten)]
    dense: DenseArgs,
    /// Folder that keeps the patch features of all images for the next evaluation: 1.2 MB per image
    /// with ViT-S/16 and 448 pixels, and as much again for the same network untrained
    #[arg(long, value_name = "FOLDER")]
    features: Option<PathBuf>,
    /// Classifiers of patches
    #[arg(long, value_enum, value_delimiter = ',', default_value = "knn,logistic")]
    classifier: Vec<Kind>,
    /// Candidates for the number of neighbors
    #[arg(long, value_delimiter = ',', default_value = "1,3,10,30")]
    k: Vec<usize>,
    /// Candidates for C of the regression; by default 8 from 1e-6 to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
    /// Maximum number of iterations of the regression for each C
    #[arg(long, default_value_t = 1000)]
    max_iterations: usize,
    /// Maximum number of patches of the training images that are kept
    #[arg(long, default_value = "1048576")]
    memory: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Pixels of the nearest patches vote
    Knn,
    /// Logistic regression on the most frequent class of a patch
    Logistic,
}

impl PatchArgs {
    fn protocol(&self) -> Result<SegmentPatches> {
        let dense = &self.dense;
        let mut protocol = SegmentPatches::published(dense.images()?);
        let classifier = |kind: &Kind| match kind {
            Kind::Knn => PatchClassifier::Knn,
            Kind::Logistic => PatchClassifier::Logistic,
        };
        protocol.classifiers = self.classifier.iter().map(classifier).collect();
        (protocol.features, protocol.shown) = (self.features.clone(), dense.shown());
        (protocol.mask, protocol.skip_untrained) = (dense.mask_size(), dense.skip_untrained);
        let config = &mut protocol.config;
        (config.k, config.memory, config.seed) = (self.k.clone(), self.memory.get(), dense.seed);
        (config.side, config.max_iterations) =
            (dense.crop.unwrap_or(config.side), self.max_iterations);
        if !self.c.is_empty() {
            config.c.clone_from(&self.c);
        }
        Ok(protocol)
    }
}

/// Measures all networks.
pub fn run(args: &PatchArgs) -> Result<Outcome> {
    at_least_one("--k", &args.k)?;
    positive("--c", &args.c)?;
    let terminal = Terminal::new(args.dense.picture.as_deref())?;
    let (protocol, dense) = (args.protocol()?, &args.dense);
    let side = PatchConfig::default().side;
    if !shared::extract(dense, &protocol.images, args.features.as_deref(), side)? {
        return Ok(Outcome::of_another_process());
    }
    dense.measure(&protocol, &terminal, Measured::of_several)
}
