//! `simdino bench data`: measures the throughput of the data pipeline on given images.

use std::path::PathBuf;
use std::sync::Arc;

use data::DataConfig;
use data::throughput;
use serde_json::json;
use simdino::RunConfig;

use crate::config;
use crate::console::answer;
use crate::failure::{Failure, Result};

/// Arguments of `simdino bench data`.
#[derive(Debug, clap::Args)]
pub struct DataArgs {
    /// Folder, list file, or tar shards
    path: String,
    /// Config file, or name of a recipe, whose augmentation is used instead of the defaults
    #[arg(long)]
    config: Option<PathBuf>,
    /// Values that replace those of the config file, or defaults
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Threads, one or more numbers; 0 = one per core
    #[arg(long, value_delimiter = ',', default_values_t = [1, 0])]
    threads: Vec<usize>,
    /// Time to measure each number of threads, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// One JSON object on the last line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if an option or the config is invalid or the images cannot be read.
pub fn run(args: &DataArgs) -> Result<()> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        let seconds = args.seconds;
        return Err(Failure::usage(format!(
            "--seconds: must be greater than 0 and at most 3600 (got {seconds})"
        )));
    }
    let RunConfig { augment, data, .. } =
        config::for_crops(args.config.as_deref(), &args.overrides)?;
    let config = DataConfig { path: Some(args.path.clone()), ..DataConfig::default() };
    let dataset = Arc::new(data::open(&config.with_pixels(data.pixels()))?);
    let decode_only = throughput::decoding(&dataset, args.seconds)?;
    let mut rows = Vec::new();
    for &threads in &args.threads {
        let img_s = throughput::pipeline(&dataset, &augment, threads, args.seconds)?;
        rows.push((threads, img_s));
    }
    let mut text = format!("{:<24} {decode_only:>9.1} img/s on one thread\n", "decoding alone");
    for (threads, img_s) in &rows {
        let name = match threads {
            0 => "pipeline, all cores".to_owned(),
            1 => "pipeline, 1 thread".to_owned(),
            n => format!("pipeline, {n} threads"),
        };
        text += &format!("{name:<24} {img_s:>9.1} img/s\n");
    }
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(threads, img_s)| json!({"threads": threads, "img_s": img_s}))
            .collect();
        text += &format!("{}\n", json!({"decode_only_img_s": decode_only, "pipeline": rows}));
    }
    answer(&text)
}
