//! `simdino picture pca` and `picture attention`: what a backbone sees in images.

use std::path::{Path, PathBuf};

use data::Dataset;
use eval::pictures::{AttentionOptions, PcaOptions, attention_sheet, pca_sheet};
use image::RgbImage;
use model::weights::PretrainedBackbone;

use super::out::png;
use crate::console::answer;
use crate::failure::{Failure, Result};
use crate::train::pictures::save;
use crate::weights;
use simdino::device::{self, DeviceSpec};
use simdino::weights::data_config;

/// Patches along a side of what the network sees, unless told otherwise: as many as DINO's pictures
/// have.
const PATCHES: i64 = 30;

/// What both pictures take.
#[derive(Debug, clap::Args)]
pub struct Common {
    /// Images: a folder, list file, tar shards
    data: String,
    /// A run, a checkpoint, or a weight file of any kind that `simdino import` reads
    #[arg(short, long)]
    weights: PathBuf,
    /// What the keys of the network in the file begin with, where there are several
    #[arg(long)]
    prefix: Option<String>,
    /// Images on the sheet, spread over the set
    #[arg(long, default_value_t = 8)]
    images: usize,
    /// Side of the square that the network sees, in pixels; by default 30 patches
    #[arg(long)]
    side: Option<u32>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
}

/// What `picture pca` takes.
#[derive(Debug, clap::Args)]
pub struct PcaArgs {
    #[command(flatten)]
    common: Common,
    /// PNG file to write
    #[arg(short, long, default_value = "pca.png")]
    out: PathBuf,
    /// Where the first component counts as foreground, 0 to 1 over its range; by default above
    /// its mean
    #[arg(long)]
    threshold: Option<f64>,
}

/// What `picture attention` takes.
#[derive(Debug, clap::Args)]
pub struct AttentionArgs {
    #[command(flatten)]
    common: Common,
    /// PNG file to write
    #[arg(short, long, default_value = "attention.png")]
    out: PathBuf,
    /// Share of the attention that is kept in the third column
    #[arg(long, default_value_t = 0.6)]
    mass: f64,
    /// A column for each head too
    #[arg(long)]
    heads: bool,
}

/// Images, the network and the side it sees them at.
struct Scene {
    dataset: Dataset,
    indices: Vec<usize>,
    weights: PretrainedBackbone,
    side: u32,
    device: tch::Device,
}

impl Scene {
    fn open(args: &Common) -> Result<Self> {
        if !(1..=64).contains(&args.images) {
            return Err(Failure::usage(format!("--images: must be 1 to 64 (got {})", args.images)));
        }
        let device = device::resolve(args.device)?;
        let weights = weights::open(&args.weights, args.prefix.as_deref(), device)?;
        let patch = weights.model.patch_size;
        let side = args.side.map_or(PATCHES * patch, i64::from);
        if side < patch || side % patch != 0 {
            return Err(Failure::usage(format!(
                "--side: must be a multiple of the network's patch of {patch} (got {side})"
            )));
        }
        let side = u32::try_from(side)
            .map_err(|_| Failure::usage(format!("--side: {side} is too large")))?;
        let dataset = data::open(&data_config(&weights, &args.data))?;
        let indices = dataset.readable(args.images);
        if indices.is_empty() {
            let advice = "`simdino data check` says why";
            return Err(Failure::failed(format!(
                "{}: no readable image found ({advice})",
                args.data
            )));
        }
        Ok(Self { dataset, indices, weights, side, device })
    }
}

/// Draws the principal components of patch features.
///
/// # Errors
/// Weights or images cannot be read, or the picture not be written.
pub fn pca(args: &PcaArgs) -> Result<()> {
    png(&args.out)?;
    if args.threshold.is_some_and(|threshold| !(0.0..1.0).contains(&threshold)) {
        return Err(Failure::usage("--threshold: must be at least 0 and below 1"));
    }
    let scene = Scene::open(&args.common)?;
    let mut options = PcaOptions::new(scene.side, scene.weights.normalize.clone());
    (options.device, options.threshold) = (scene.device, args.threshold);
    let backbone = &scene.weights.backbone;
    let sheet = pca_sheet(&scene.dataset, &scene.indices, backbone, &options)?;
    written(
        &sheet,
        &args.out,
        &scene,
        "from the top the image, its patch features as colors, and \
             the same of the foreground alone",
    )
}

/// Draws the attention of the class token.
///
/// # Errors
/// As [`pca`].
pub fn attention(args: &AttentionArgs) -> Result<()> {
    png(&args.out)?;
    let scene = Scene::open(&args.common)?;
    let mut options = AttentionOptions::new(scene.side, scene.weights.normalize.clone());
    (options.device, options.mass, options.heads) = (scene.device, args.mass, args.heads);
    let backbone = &scene.weights.backbone;
    let sheet = attention_sheet(&scene.dataset, &scene.indices, backbone, &options)?;
    let heads = if args.heads { ", and each head" } else { "" };
    let words = format!(
        "from the left the image, the mean attention of the class token, and where {:.0} % of it \
         lies{heads}",
        100.0 * args.mass
    );
    written(&sheet, &args.out, &scene, &words)
}

fn written(sheet: &RgbImage, out: &Path, scene: &Scene, words: &str) -> Result<()> {
    save(sheet, out)?;
    let (count, side) = (scene.indices.len(), scene.side);
    answer(&format!("{}: {count} images at {side} pixels; {words}\n", out.display()))
}
