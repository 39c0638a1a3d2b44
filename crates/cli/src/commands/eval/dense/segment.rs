//! `simdino eval segment`: semantic segmentation with a linear head.

use std::num::NonZeroUsize;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use eval::segmentation::linear::Recipe;
use protocols::dense::Segment;

use crate::commands::eval::numbers::positive;
use crate::commands::eval::outcome::{Measured, Outcome};
use crate::commands::eval::terminal::Terminal;
use crate::failure::Result;

use super::args::DenseArgs;

/// Default memory limit for cached features, in GB.
const CACHE_GB: f64 = 8.0;

/// Arguments of `simdino eval segment`.
#[derive(Debug, clap::Args)]
pub struct SegmentArgs {
    #[command(flatten)]
    dense: DenseArgs,
    /// Published recipe, which provides the defaults of the other options
    #[arg(long, value_enum, default_value = "dinov3")]
    recipe: Named,
    /// Iterations of training; the warm-up keeps its share of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Peak learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// Images per iteration; by default that of the recipe
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Distance from one test window to the next, in pixels; by default two thirds of the crop
    #[arg(long)]
    stride: Option<u32>,
    /// Compute the features of the training images once, without augmentation: for short runs
    #[arg(long)]
    cached: bool,
    /// Memory limit for cached features, in GB
    #[arg(long, default_value_t = CACHE_GB)]
    cache_gb: f64,
}

/// A [`Recipe`] by its name.
#[derive(Debug, Clone, Copy)]
struct Named(&'static str, Recipe);

const NAMED: [Named; Recipe::ALL.len()] = {
    let mut named = [Named("", Recipe::Dinov3); Recipe::ALL.len()];
    let mut i = 0;
    while i < named.len() {
        named[i] = Named(Recipe::ALL[i].0, Recipe::ALL[i].1);
        i += 1;
    }
    named
};

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        &NAMED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0))
    }
}

impl SegmentArgs {
    fn protocol(&self) -> Result<Segment> {
        let dense = &self.dense;
        let mut protocol = Segment::published(dense.images()?, self.recipe.1);
        (protocol.stride, protocol.shown) = (self.stride, dense.shown());
        protocol.mask = dense.mask(protocol.mask);
        protocol.skip_untrained = dense.skip_untrained;
        let mut config = protocol.config;
        if let Some(crop) = dense.crop {
            config = config.with_crop(crop);
        }
        if let Some(iterations) = self.iterations {
            config = config.with_iterations(iterations);
        }
        config.lr = self.lr.unwrap_or(config.lr);
        config.batch = self.batch.map_or(config.batch, usize::from);
        (config.cached, config.cache_gb, config.seed) = (self.cached, self.cache_gb, dense.seed);
        protocol.config = config;
        Ok(protocol)
    }
}

/// Measures all networks.
pub fn run(args: &SegmentArgs) -> Result<Outcome> {
    positive("--lr", args.lr.as_slice())?;
    let terminal = Terminal::new(args.dense.picture.as_deref())?;
    let protocol = args.protocol()?;
    args.dense.measure(&protocol, &terminal, Measured::of)
}
