//! The pictures of a run's report: a sheet of crops, and the PCA of patch features.

use std::path::Path;
use std::sync::Arc;

use data::Dataset;
use eval::pictures::{PcaOptions, Scene, crop_sheet, lay_out, pca_rows};
use image::RgbImage;
use model::ModelConfig;
use model::VisionTransformer;
use simdino::assemble::normalize;
use tch::Device;

use crate::config::RunConfig;
use crate::failure::{Context, Result};
use crate::out::folder_for;

/// Number of images in each picture.
const NUM_IMAGES: usize = 8;
/// A grid with fewer patches per side is too coarse for a picture.
const COARSE_GRID: i64 = 14;

/// Draws `crops.png` and `pca.png` in the folder `dir`.
///
/// # Errors
/// Returns an error if no image can be read or a file cannot be written.
pub fn draw(
    dir: &Path,
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    backbone: &VisionTransformer,
    device: Device,
) -> Result<()> {
    std::fs::create_dir_all(dir)
        .context(|| format!("{}: cannot create the folder", dir.display()))?;
    let indices = dataset.readable(NUM_IMAGES);
    let rows: Vec<_> = indices.iter().map(|&index| (index, 0)).collect();
    let crops = crop_sheet(dataset, &rows, &config.augment, config.run.seed)?;
    save(&crops, &dir.join("crops.png"))?;
    let mut options = PcaOptions::new(normalize(&config.augment));
    options.device = device;
    let scene = Scene { dataset, indices: &indices, side: pca_side(&config.model) };
    let mut rows = vec![scene.row()?];
    rows.extend(pca_rows(&scene, "", backbone, &options)?.rows);
    rows.iter_mut().for_each(|row| row.label.clear()); // the page has a caption
    save(&lay_out(&rows), &dir.join("pca.png"))
}

/// Returns the side of the images for the PCA, in pixels: that of the model, or twice that if its
/// grid of patches would be too coarse.
fn pca_side(model: &ModelConfig) -> u32 {
    let coarse = model.image_size / model.patch_size < COARSE_GRID;
    let side = if coarse { 2 * model.image_size } else { model.image_size };
    u32::try_from(side).unwrap_or(u32::MAX)
}

/// Writes a picture in the format that the file extension names.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn save(image: &RgbImage, path: &Path) -> Result<()> {
    let cannot = || format!("{}: cannot write the picture", path.display());
    folder_for(path).context(cannot)?;
    image.save(path).context(cannot)
}
