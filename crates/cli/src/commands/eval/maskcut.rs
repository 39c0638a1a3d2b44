//! `simdino eval maskcut`: finds objects in images by MaskCut, and compares them with a ground
//! truth.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::ValueEnum;
use eval::discovery::AttentionFeature;
use protocols::MaskCut;

use crate::failure::{Failure, Result};
use crate::sizes::at_most;

use super::networks::Networks;
use super::outcome::{Outcome, measure_all};
use super::terminal::Terminal;

/// Arguments of `simdino eval maskcut`.
#[derive(Debug, clap::Args)]
pub struct MaskCutArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// The true objects, in COCO's format; their classes are ignored
    #[arg(long, value_name = "FILE")]
    ground_truth: Option<PathBuf>,
    /// JSON file for the masks that are found: a list of detections in COCO's format
    #[arg(long, value_name = "FILE")]
    detections: Option<PathBuf>,
    /// JSON file for the same masks as annotations in COCO's format, to train a detector with
    #[arg(long, value_name = "FILE")]
    annotations: Option<PathBuf>,
    /// PNG file with some images and their masks: the true ones, and those of each network
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Images in the picture
    #[arg(long, default_value = "16")]
    shown: NonZeroUsize,
    /// Maximum number of images; all by default
    #[arg(long)]
    limit: Option<NonZeroUsize>,
    /// Patches are alike if the cosine of their features is above this, 0 to below 1
    #[arg(long, default_value_t = 0.15)]
    tau: f64,
    /// Maximum number of masks per image
    #[arg(long, default_value_t = 3)]
    masks: usize,
    /// Vectors of the last block's attention that describe a patch
    #[arg(long, value_enum, default_value_t = Feature::Key)]
    feature: Feature,
    /// Side of the square to which images are resized, in pixels, before they become whole patches
    #[arg(long, default_value_t = objects::picture::SIDE)]
    side: usize,
    /// Do not refine masks, which consist of whole patches, to the edges of the image
    #[arg(long)]
    skip_crf: bool,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

/// The vectors of attention, by their names on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Feature {
    Query,
    Key,
    Value,
}

impl From<Feature> for AttentionFeature {
    fn from(feature: Feature) -> Self {
        match feature {
            Feature::Query => Self::Query,
            Feature::Key => Self::Key,
            Feature::Value => Self::Value,
        }
    }
}

impl MaskCutArgs {
    fn protocol(&self) -> MaskCut {
        MaskCut {
            images: self.images.clone(),
            ground_truth: self.ground_truth.clone(),
            detections: self.detections.clone(),
            annotations: self.annotations.clone(),
            limit: self.limit.map(NonZeroUsize::get),
            tau: self.tau,
            masks: self.masks,
            feature: self.feature.into(),
            side: self.side,
            crf: !self.skip_crf,
            skip_untrained: self.skip_untrained,
            shown: if self.picture.is_some() { self.shown.get() } else { 0 },
        }
    }
}

/// Measures all networks.
pub fn run(args: &MaskCutArgs) -> Result<Outcome> {
    at_most("--side", u32::try_from(args.side).unwrap_or(u32::MAX))?;
    let several = args.networks.paths()?.len() > 1;
    let written = [&args.detections, &args.annotations];
    if several && written.iter().any(|file| file.is_some()) {
        return Err(Failure::usage(
            "--detections and --annotations need a single network, because each network would \
             overwrite the file",
        ));
    }
    let terminal = Terminal::new(args.picture.as_deref())?;
    measure_all(&args.networks, &args.protocol(), &terminal)
}
