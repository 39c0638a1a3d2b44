//! `simdino data pack` and `simdino data index`: write tar shards and their indexes.

use std::path::PathBuf;

use base::counted;
use data::DataConfig;
use data::source::{self, PackOptions};
use indicatif::HumanBytes;

use crate::console::{answer, note, progress};
use crate::failure::{Failure, Result};

/// Arguments of `simdino data pack`.
#[derive(Debug, clap::Args)]
pub struct PackArgs {
    /// Folder, list file, or tar shards
    path: String,
    /// Folder for the shards: a new one, or one whose packing was stopped
    out: PathBuf,
    /// Images in a shard
    #[arg(long, default_value_t = PackOptions::default().shard_images)]
    shard_images: usize,
    /// Leave out files that cannot be read instead of stopping at the first; images are copied
    /// without being decoded, so broken ones are packed, too (data check names them)
    #[arg(long)]
    skip_unreadable: bool,
}

/// Arguments of `simdino data index`.
#[derive(Debug, clap::Args)]
pub struct IndexArgs {
    /// A tar shard, a folder of them, or a pattern such as 'data/train-*.tar'
    path: PathBuf,
}

/// Packs images into shards, and prints a summary.
///
/// # Errors
/// Returns an error if the images cannot be opened or read or the shards cannot be written.
pub fn pack(args: &PackArgs) -> Result<()> {
    if args.shard_images == 0 {
        return Err(Failure::usage("--shard-images: must be at least 1 (got 0)"));
    }
    let source =
        source::open(&DataConfig { path: Some(args.path.clone()), ..DataConfig::default() })?;
    let options =
        PackOptions { shard_images: args.shard_images, skip_unreadable: args.skip_unreadable };
    source.notices().sentences().iter().for_each(|sentence| note(sentence));
    let bar = progress(source.len(), "images packed");
    let report = source::pack(source.as_ref(), &args.out, &options, |images| {
        bar.inc(images as u64);
    });
    bar.finish_and_clear();
    let report = report.map_err(|error| match error {
        data::Error::Image { .. } => Failure::failed(format!(
            "{}; use --skip-unreadable to leave out files that cannot be read",
            base::error_chain(&error)
        )),
        error => error.into(),
    })?;
    for (name, reason) in &report.skipped {
        note(&format!("warning: skipped {name}: {reason}"));
    }
    let earlier = match report.earlier {
        0 => String::new(),
        earlier => format!(", {earlier} of them written earlier"),
    };
    answer(&format!(
        "{}: {} in {}{earlier}; {} written and read back\n",
        args.out.display(),
        counted(report.images, "image", "images"),
        counted(report.shards, "shard", "shards"),
        HumanBytes(report.bytes),
    ))
}

/// Writes the indexes of shards, and prints their number.
///
/// # Errors
/// Returns an error if a shard cannot be read or its index cannot be written.
pub fn index(args: &IndexArgs) -> Result<()> {
    let bar = progress(0, "shards indexed");
    let counts = source::write_index(&args.path, |total| {
        bar.set_length(total as u64);
        bar.inc(1);
    });
    bar.finish_and_clear();
    let (shards, images) = counts?;
    let shards = counted(shards, "shard", "shards");
    let images = counted(images, "image", "images");
    answer(&format!("{}: {shards}, {images} indexed\n", args.path.display()))
}
