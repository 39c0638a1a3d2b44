//! `simdino data`: writes the synthetic images to disk, finds broken images, and packs shards.

mod check;
mod pack;

use std::path::PathBuf;

use clap::Subcommand;
use data::{DataConfig, SourceKind, SyntheticConfig};

use crate::console::{answer, progress};
use crate::failure::{Failure, Result};

/// What `simdino data` takes.
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
    /// Copy the images of any source into tar shards with indexes; goes on where it was stopped
    Pack(pack::PackArgs),
    /// Write an index beside each plain tar shard: it opens at once then, and changes are noticed
    Index(pack::IndexArgs),
}

/// What `data synth` takes.
#[derive(Debug, clap::Args)]
struct SynthArgs {
    /// Folder to make; it must not hold anything yet
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

/// Runs the verb.
///
/// # Errors
/// The folder cannot be written, or the images not be opened.
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
    let bar = progress(args.count, "images drawn");
    data::synthetic::write_folder(&synthetic, &args.dir, |done| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    let (dir, classes) = (args.dir.display(), data::synthetic::class_names().len());
    answer(&format!(
        "{} images of {classes} classes in {dir}/images, their masks in {dir}/masks\n",
        args.count
    ))
}
