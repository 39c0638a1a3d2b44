//! `simdino eval depth`: monocular depth estimation with a linear head.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;
use eval::depth::{DepthConfig, DepthLayers, Scored};
use protocols::{Depth, DepthFolder, Protocol};

use crate::failure::Result;
use crate::sizes::whole_patches;

use super::networks::Networks;
use super::numbers::positive;
use super::outcome::{Measured, Outcome, check_folders, measure_each};
use super::terminal::Terminal;

/// Arguments of `simdino eval depth`.
#[derive(Debug, clap::Args)]
pub struct DepthArgs {
    #[command(flatten)]
    networks: Networks,
    /// Images to learn from: a folder, or a folder in a tar file, such as pack.tar/train/images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// Their depth maps, which have the same names: gray PNG of 16 bits, or .npy of meters; 0 is
    /// not measured
    #[arg(long, value_name = "FOLDER")]
    depth: PathBuf,
    /// Images whose depth is estimated
    #[arg(long, value_name = "FOLDER")]
    test_images: PathBuf,
    /// Their depth maps
    #[arg(long, value_name = "FOLDER")]
    test_depth: PathBuf,
    /// Value of a PNG at one meter: 1000 for NYU, 256 for KITTI
    #[arg(long, default_value_t = 1000.0)]
    divisor: f64,
    /// Largest depth, in meters: 10 for NYU, 80 for KITTI
    #[arg(long, default_value_t = 10.0)]
    max_depth: f64,
    /// Blocks whose tokens are used
    #[arg(long, value_enum, default_value = "last")]
    layers: LayersArg,
    /// Part of the test images that is scored
    #[arg(long, value_enum, default_value = "all")]
    scored: ScoredArg,
    /// Iterations of training; the warm-up keeps its share of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Side of the crops that the head is trained on, in pixels; by default 416 by 544
    #[arg(long, value_name = "N")]
    crop: Option<u32>,
    /// Images per iteration; by default 16
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Peak learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// Do not average the estimates of each test image and its mirror image
    #[arg(long)]
    no_test_flip: bool,
    /// File with names of images to learn from, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// File with names of images to test with, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    test_list: Option<PathBuf>,
    /// Maximum number of images to learn from; all by default
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Maximum number of images to test with; all by default
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LayersArg {
    /// The last block
    Last,
    /// Four blocks at the ends of the quarters of the network
    Four,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScoredArg {
    /// All pixels
    All,
    /// Eigen's crop of NYU, of images of 640x480
    Nyu,
    /// Garg's crop of KITTI
    Garg,
}

impl DepthArgs {
    fn protocol(&self) -> Depth {
        let folder = |images: &PathBuf, maps: &PathBuf, list: &Option<PathBuf>| DepthFolder {
            images: images.clone(),
            maps: maps.clone(),
            list: list.clone(),
        };
        let mut protocol = Depth::published(
            folder(&self.images, &self.depth, &self.list),
            folder(&self.test_images, &self.test_depth, &self.test_list),
        );
        let number = |limit: Option<NonZeroUsize>| limit.map(NonZeroUsize::get);
        (protocol.max_train, protocol.max_test) = (number(self.max_train), number(self.max_test));
        (protocol.divisor, protocol.skip_untrained) = (self.divisor, self.skip_untrained);
        protocol.config = self.config();
        protocol
    }

    fn config(&self) -> DepthConfig {
        let mut config = DepthConfig::default();
        if let Some(iterations) = self.iterations {
            config = config.with_iterations(iterations);
        }
        config.layers = match self.layers {
            LayersArg::Last => DepthLayers::Last,
            LayersArg::Four => DepthLayers::Four,
        };
        config.scored = match self.scored {
            ScoredArg::All => Scored::All,
            ScoredArg::Nyu => Scored::Nyu,
            ScoredArg::Garg => Scored::Garg,
        };
        config.crop = self.crop.map_or(config.crop, |side| [side; 2]);
        config.batch = self.batch.map_or(config.batch, usize::from);
        config.lr = self.lr.unwrap_or(config.lr);
        (config.max_depth, config.seed) = (self.max_depth, self.seed);
        config.test_flip = !self.no_test_flip;
        config
    }
}

/// Measures all networks.
pub fn run(args: &DepthArgs) -> Result<Outcome> {
    positive("--lr", args.lr.as_slice())?;
    let (protocol, terminal) = (args.protocol(), Terminal::default());
    check_folders(&args.networks)?;
    protocol.check()?;
    measure_each(&args.networks, &mut |subject| {
        let crop = |side| whole_patches("--crop", side, &subject.weights.model);
        args.crop.map_or(Ok(()), crop)?;
        Measured::of(protocol.measure(subject, &terminal)?)
    })
}
