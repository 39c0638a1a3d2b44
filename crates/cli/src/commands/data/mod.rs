//! `simdino data`: writes synthetic images, finds broken images, and packs and indexes shards.

mod check;
mod pack;

use std::path::PathBuf;

use base::counted;
use clap::Subcommand;
use data::{DataConfig, SourceKind, SyntheticConfig};

use crate::console::{answer, progress};
use crate::failure::{Failure, Result};

/// Arguments of `simdino data`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Draw the synthetic images into a folder: images/, masks/ and labels.csv
    Synth(SynthArgs),
    /// Read every image: counts, formats, sizes, labels, and which are broken
    Check(check::Args),
    /// Copy the images of any source into tar shards with indexes; continues if it was interrupted
    Pack(pack::PackArgs),
    /// Write an index next to each plain tar shard: the shard then opens at once, and changes are
    /// noticed
    Index(pack::IndexArgs),
}

/// Arguments of `simdino data synth`.
#[derive(Debug, clap::Args)]
struct SynthArgs {
    /// Folder to create; it must be empty if it exists
    dir: PathBuf,
    /// Number of images
    #[arg(long, default_value_t = SyntheticConfig::default().count)]
    count: usize,
    /// Side of the images, in pixels
    #[arg(long, default_value_t = SyntheticConfig::default().size)]
    size: u32,
    /// Seed of the drawing
    #[arg(long, default_value_t = SyntheticConfig::default().seed)]
    seed: u64,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a folder cannot be written or the images cannot be opened.
pub fn run(args: &Args) -> Result<()> {
    match &args.action {
        Action::Synth(args) => synth(args),
        Action::Check(args) => check::run(args),
        Action::Pack(args) => pack::pack(args),
        Action::Index(args) => pack::index(args),
    }
}

fn synth(args: &SynthArgs) -> Result<()> {
    let synthetic = SyntheticConfig { count: args.count, size: args.size, seed: args.seed };
    let config = DataConfig {
        source: SourceKind::Synthetic,
        synthetic: synthetic.clone(),
        ..DataConfig::default()
    };
    let problems = config
        .validate()
        .into_iter()
        .map(|(key, what)| format!("--{}: {what}", key.trim_start_matches("synthetic.")));
    let problems: Vec<String> = problems.collect();
    if !problems.is_empty() {
        return Err(Failure::problems(problems));
    }
    let bar = progress(args.count, "images generated");
    data::synthetic::write_folder(&synthetic, &args.dir, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let (dir, classes) = (args.dir.display(), data::synthetic::class_names().len());
    answer(&format!(
        "wrote {} of {classes} classes to {dir}/images and their masks to {dir}/masks; to train \
         on them, give the folder {dir}/images\n",
        counted(args.count, "image", "images")
    ))
}
