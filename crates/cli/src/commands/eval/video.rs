//! `simdino eval video`: video object segmentation without training, from the objects of the first
//! frame.

use std::path::PathBuf;

use eval::tracking::SIDE;
use protocols::Video;

use crate::commands::score::davis_sequences;
use crate::failure::{Failure, Result};
use crate::sizes::at_most;

use super::networks::Networks;
use super::outcome::{Outcome, measure_all};
use super::terminal::Terminal;

/// Arguments of `simdino eval video`.
#[derive(Debug, clap::Args)]
pub struct VideoArgs {
    #[command(flatten)]
    networks: Networks,
    /// Frames: a folder with one folder of images per sequence, such as JPEGImages/480p of DAVIS
    #[arg(long, value_name = "FOLDER")]
    frames: PathBuf,
    /// Annotations: a folder of the same structure with PNG files whose pixels are numbers of
    /// objects; the first of a sequence is given to the network
    #[arg(long, value_name = "FOLDER")]
    truth: PathBuf,
    /// A text file with one sequence per line, such as ImageSets/2017/val.txt; by default all of
    /// the annotations
    #[arg(long, value_name = "FILE")]
    sequences: Option<PathBuf>,
    /// Everything but 0 is one object, as in DAVIS 2016
    #[arg(long)]
    single_object: bool,
    /// Folder for the objects that were followed, as PNG files
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
    /// Shorter side of the frames that the network sees, in pixels
    #[arg(long, default_value_t = SIDE)]
    side: usize,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

/// Measures all networks.
pub fn run(args: &VideoArgs) -> Result<Outcome> {
    if args.results.is_some() && args.networks.paths()?.len() > 1 {
        return Err(Failure::usage(
            "--results needs a single network, because each network would overwrite the files",
        ));
    }
    at_most("--side", u32::try_from(args.side).unwrap_or(u32::MAX))?;
    let protocol = Video {
        frames: args.frames.clone(),
        truth: args.truth.clone(),
        sequences: args.sequences.as_deref().map(davis_sequences).transpose()?,
        single_object: args.single_object,
        results: args.results.clone(),
        side: args.side,
        skip_untrained: args.skip_untrained,
    };
    measure_all(&args.networks, &protocol, &Terminal::default())
}
