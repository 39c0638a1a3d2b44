//! `simdino eval copy`: ranks the originals of copies.

use std::path::PathBuf;

use protocols::CopyDetection;

use crate::failure::Result;
use crate::sizes::at_most;

use super::networks::Networks;
use super::outcome::{Outcome, measure_all};
use super::terminal::Terminal;

/// Arguments of `simdino eval copy`.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of Copydays, with the folders original, strong, jpegqual/N and crops/N
    #[arg(long, value_name = "FOLDER")]
    copydays: PathBuf,
    /// Additional images of the database, which are not originals
    #[arg(long, value_name = "FOLDER")]
    distractors: Option<PathBuf>,
    /// Images from which the whitening of features is learned
    #[arg(long, value_name = "FOLDER")]
    whiten: Option<PathBuf>,
    /// Side of the square to which images are resized, in pixels, rounded down to whole patches
    #[arg(long, default_value_t = 320)]
    side: u32,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

/// Measures all networks.
pub fn run(args: &CopyArgs) -> Result<Outcome> {
    at_most("--side", args.side)?;
    let protocol = CopyDetection {
        copydays: args.copydays.clone(),
        distractors: args.distractors.clone(),
        whiten: args.whiten.clone(),
        side: args.side,
        skip_untrained: args.skip_untrained,
    };
    measure_all(&args.networks, &protocol, &Terminal::default())
}
