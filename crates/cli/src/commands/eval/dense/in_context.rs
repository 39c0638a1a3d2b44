//! `simdino eval in-context`: segmentation from the most similar patches in a memory.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use eval::segmentation::in_context::{IgnoredPixels, InContextConfig};
use protocols::dense::InContext;

use crate::commands::eval::numbers::{at_least_one, positive};
use crate::commands::eval::outcome::{Measured, Outcome};
use crate::commands::eval::terminal::Terminal;
use crate::failure::Result;

use super::args::DenseArgs;
use super::shared;

/// Arguments of `simdino eval in-context`.
#[derive(Debug, clap::Args)]
pub struct InContextArgs {
    #[command(flatten)]
    dense: DenseArgs,
    /// Folder that keeps the patch features of all images for the next evaluation: 1.2 MB per image
    /// with ViT-S/16 and 448 pixels, and as much again for the same network untrained
    #[arg(long, value_name = "FOLDER")]
    features: Option<PathBuf>,
    /// Neighbors of a patch
    #[arg(long, default_value_t = 30)]
    k: usize,
    /// Temperature of the weights of neighbors
    #[arg(long, default_value_t = 0.02)]
    temperature: f64,
    /// Maximum number of patches in memory
    #[arg(long, default_value = "1048576")]
    memory: NonZeroUsize,
    /// Fill the memory from this many passes over random views of the images to learn from; 0 = one
    /// pass over whole images
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "features")]
    augmented_passes: u64,
    /// Count ignored pixels as class 0 in the memory, as the public code of Hummingbird does
    #[arg(long)]
    ignored_are_class_zero: bool,
}

impl InContextArgs {
    fn protocol(&self) -> Result<InContext> {
        let dense = &self.dense;
        let mut protocol = InContext::published(dense.images()?);
        (protocol.features, protocol.shown) = (self.features.clone(), dense.shown());
        protocol.skip_untrained = dense.skip_untrained;
        let config = &mut protocol.config;
        (config.k, config.temperature, config.memory) =
            (self.k, self.temperature, self.memory.get());
        (config.seed, config.augmented) = (dense.seed, self.augmented_passes);
        (config.side, config.mask) = (dense.crop.unwrap_or(config.side), dense.mask(config.mask));
        if self.ignored_are_class_zero {
            config.ignored = IgnoredPixels::ClassZero;
        }
        Ok(protocol)
    }
}

/// Measures all networks.
pub fn run(args: &InContextArgs) -> Result<Outcome> {
    at_least_one("--k", &[args.k])?;
    positive("--temperature", &[args.temperature])?;
    let terminal = Terminal::new(args.dense.picture.as_deref())?;
    let (protocol, dense) = (args.protocol()?, &args.dense);
    let side = InContextConfig::default().side;
    if !shared::extract(dense, &protocol.images, args.features.as_deref(), side)? {
        return Ok(Outcome::of_another_process());
    }
    dense.measure(&protocol, &terminal, Measured::of)
}
