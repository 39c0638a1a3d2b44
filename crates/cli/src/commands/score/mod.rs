//! `simdino score`: scores masks, boxes, and tracks in files, without any network.

use clap::Subcommand;

use crate::failure::Result;

mod coco;
mod corloc;
mod davis;
mod words;

pub use davis::sequences as davis_sequences;

/// Arguments of `simdino score`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// COCO's average precision and recall of boxes and masks
    Coco(coco::CocoArgs),
    /// The share of images in which the best box finds an object
    Corloc(corloc::CorlocArgs),
    /// J and F of video object segmentation, as DAVIS defines them
    Davis(davis::DavisArgs),
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a file is invalid or cannot be read or written.
pub fn run(args: &Args) -> Result<()> {
    match &args.measure {
        Measure::Coco(args) => coco::run(args),
        Measure::Corloc(args) => corloc::run(args),
        Measure::Davis(args) => davis::run(args),
    }
}
