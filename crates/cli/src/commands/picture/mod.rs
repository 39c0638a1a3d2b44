//! `simdino picture`: draws pictures of augmentations and of what backbones see.

mod neighbors;
mod network;
mod networks;
pub(super) mod out;
mod video;

use std::path::{Path, PathBuf};

use base::counted;
use clap::Subcommand;
use data::decode::PixelFormat;
use data::source::{List, is_image};
use data::{DataConfig, Dataset};
use eval::pictures::crop_sheet;
use simdino::RunConfig;

use self::out::png;
use crate::config;
use crate::console::answer;
use crate::failure::{Failure, Result};
use crate::train::pictures::save;

/// Arguments of `simdino picture`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Augmented crops: a row for each image or epoch
    Crops(CropsArgs),
    /// Patch features of a backbone as colors
    Pca(network::PcaArgs),
    /// What the class token of a backbone looks at
    Attention(network::AttentionArgs),
    /// Images and their nearest neighbors among the features of a backbone
    Neighbors(neighbors::NeighborArgs),
    /// The objects of the first frame, tracked through a video by a backbone
    Video(video::VideoArgs),
}

/// Arguments of `simdino picture crops`.
#[derive(Debug, clap::Args)]
struct CropsArgs {
    /// An image, which is drawn several times, or a folder, list file or tar shards
    path: PathBuf,
    /// PNG file to write
    #[arg(short, long, default_value = "crops.png")]
    out: PathBuf,
    /// Config file, or name of a recipe, whose augmentation and seed are used instead of the
    /// defaults
    #[arg(long)]
    config: Option<PathBuf>,
    /// Values that replace those of the config file
    #[arg(value_name = "KEY=VALUE")]
    overrides: Vec<String>,
    /// Rows: epochs of one image, or images
    #[arg(long, default_value_t = 4)]
    rows: usize,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if an option is invalid, weights or images cannot be read, or the picture
/// cannot be written.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Crops(args) => crops(args),
        What::Pca(args) => network::pca(args),
        What::Attention(args) => network::attention(args),
        What::Neighbors(args) => neighbors::run(args),
        What::Video(args) => video::run(args),
    }
}

fn crops(args: &CropsArgs) -> Result<()> {
    if !(1..=64).contains(&args.rows) {
        return Err(Failure::usage(format!(
            "--rows: must be between 1 and 64 (got {})",
            args.rows
        )));
    }
    png(&args.out)?;
    let RunConfig { augment, data, run, .. } =
        config::for_crops(args.config.as_deref(), &args.overrides)?;
    let (dataset, rows) = rows(&args.path, args.rows, data.pixels())?;
    let sheet = crop_sheet(&dataset, &rows, &augment, run.seed)?;
    save(&sheet, &args.out)?;
    answer(&format!(
        "{}: {}; from left to right: the image, 2 global crops of {} pixels, {} local crops \
         of {}\n",
        args.out.display(),
        counted(rows.len(), "row", "rows"),
        augment.global_crops_size,
        augment.local_crops_number,
        augment.local_crops_size,
    ))
}

/// Returns the dataset, and the image and epoch of each row: several epochs of a single image, or
/// several images in epoch 0.
fn rows(path: &Path, count: usize, pixels: PixelFormat) -> Result<(Dataset, Vec<(usize, u64)>)> {
    if path.is_file() && is_image(path) {
        let list = List::of_files(&[path.into()]);
        let dataset = Dataset::new(Box::new(list), DataConfig::default().min_side).with(pixels);
        return Ok((dataset, (0..count as u64).map(|epoch| (0, epoch)).collect()));
    }
    let path = path.to_string_lossy().into_owned();
    let config =
        DataConfig { path: Some(path.clone()), ..DataConfig::default() }.with_pixels(pixels);
    let dataset = data::open(&config)?;
    let rows: Vec<_> = dataset.readable(count).into_iter().map(|index| (index, 0)).collect();
    if rows.is_empty() {
        return Err(networks::nothing_readable(&path));
    }
    Ok((dataset, rows))
}
