//! `simdino score corloc`: CorLoc of the best box of each image.

use std::path::PathBuf;

use base::counted;
use score::coco::{Detections, GroundTruth};
use score::corloc;
use serde_json::json;

use crate::console::answer;
use crate::failure::Result;

use super::words::percent;

/// Arguments of `simdino score corloc`.
#[derive(Debug, clap::Args)]
pub struct CorlocArgs {
    /// COCO annotations: a JSON file with images, categories, and annotations
    #[arg(long, value_name = "FILE")]
    truth: PathBuf,
    /// Results: a JSON list of detections; the best of each image counts
    #[arg(long, value_name = "FILE")]
    results: PathBuf,
    /// One JSON object instead of a sentence
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a file is invalid or cannot be read.
pub fn run(args: &CorlocArgs) -> Result<()> {
    let found = corloc(&GroundTruth::read(&args.truth)?, &Detections::read(&args.results)?)?;
    if args.json {
        let object = json!({
            "protocol": "corloc",
            "truth": args.truth.display().to_string(),
            "results": args.results.display().to_string(),
            "scores": found,
        });
        return answer(&format!("{object}\n"));
    }
    answer(&format!(
        "CorLoc {}: {} of {}; images without a box: {}, images without an object (not counted): \
         {}\n",
        percent(found.corloc),
        found.correct,
        counted(found.images, "image", "images"),
        found.without_box,
        found.without_object
    ))
}
