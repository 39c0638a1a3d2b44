//! The pictures of a run's report: a sheet of crops, and the PCA of patch features.

use std::path::Path;
use std::sync::Arc;

use data::dataset::Dataset;
use eval::pictures::{PcaOptions, crop_sheet, pca_sheet};
use image::RgbImage;
use model::VisionTransformer;
use model::config::ModelConfig;
use tch::Device;

use crate::config::RunConfig;
use crate::failure::{Context, Result};

/// Images on a sheet.
const NUM_IMAGES: usize = 8;
/// Images tried for one place on a sheet.
const TRIES: usize = 8;
/// A grid of fewer patches a side is too coarse for a picture.
const COARSE_GRID: i64 = 14;

/// Draws `crops.png` and `pca.png` into `dir`.
///
/// # Errors
/// No image can be read, or the disk does not take the files.
pub fn draw(
    dir: &Path,
    config: &RunConfig,
    dataset: &Arc<Dataset>,
    backbone: &VisionTransformer,
    device: Device,
) -> Result<()> {
    std::fs::create_dir_all(dir)
        .context(|| format!("{}: cannot make the folder", dir.display()))?;
    let indices = readable(dataset);
    let crops = crop_sheet(dataset, &indices, &config.augment, (config.run.seed, 0))?;
    save(&crops, &dir.join("crops.png"))?;
    let options = PcaOptions {
        side: pca_side(&config.model),
        mean: config.augment.mean,
        std: config.augment.std,
        device,
        threshold: None,
    };
    let pca = pca_sheet(dataset, &indices, backbone, &options)?;
    save(&pca, &dir.join("pca.png"))
}

/// Side of the image that is looked at: the model's, or twice that where its grid of patches would
/// be too coarse to see anything.
fn pca_side(model: &ModelConfig) -> u32 {
    let coarse = model.image_size / model.patch_size < COARSE_GRID;
    let side = if coarse { 2 * model.image_size } else { model.image_size };
    u32::try_from(side).unwrap_or(u32::MAX)
}

/// Readable images spread over the set, so that classes stored one after the other all show.
fn readable(dataset: &Dataset) -> Vec<usize> {
    let len = dataset.len();
    let count = NUM_IMAGES.min(len);
    let bounds = |part: usize| part * len / count..(part + 1) * len / count;
    (0..count)
        .filter_map(|part| bounds(part).take(TRIES).find(|&i| dataset.image(i).is_ok()))
        .collect()
}

fn save(image: &RgbImage, path: &Path) -> Result<()> {
    image.save(path).context(|| format!("{}: cannot write the picture", path.display()))
}
