//! `simdino eval retrieval`: ranks images of the same place.

use std::path::PathBuf;

use protocols::Retrieval;

use crate::failure::Result;
use crate::sizes::at_most;

use super::networks::Networks;
use super::outcome::{Outcome, measure_all};
use super::terminal::Terminal;

/// Arguments of `simdino eval retrieval`.
#[derive(Debug, clap::Args)]
pub struct RetrievalArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of the database images and of the query images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// gnd_roxford5k.pkl, gnd_rparis6k.pkl, or a JSON file of the same form
    #[arg(long, value_name = "FILE")]
    ground_truth: PathBuf,
    /// Maximum length of the longer side, in pixels; DINO uses 224 for Oxford and 512 for Paris
    #[arg(long, default_value_t = 224)]
    max_side: u32,
    /// Average the features of three image sizes
    #[arg(long)]
    multi_scale: bool,
    /// Use only the part of a query image that shows the place
    #[arg(long)]
    crop_queries: bool,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

/// Measures all networks.
pub fn run(args: &RetrievalArgs) -> Result<Outcome> {
    at_most("--max-side", args.max_side)?;
    let protocol = Retrieval {
        images: args.images.clone(),
        ground_truth: args.ground_truth.clone(),
        max_side: args.max_side,
        multi_scale: args.multi_scale,
        crop_queries: args.crop_queries,
        skip_untrained: args.skip_untrained,
    };
    measure_all(&args.networks, &protocol, &Terminal::default())
}
