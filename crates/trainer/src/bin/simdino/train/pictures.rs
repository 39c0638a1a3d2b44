//! The pictures of a run's report: a sheet of crops, and the PCA of patch features.

use std::path::Path;
use std::sync::Arc;

use data::dataset::Dataset;
use eval::pictures::{PcaOptions, crop_sheet, pca_sheet};
use image::RgbImage;
use model::VisionTransformer;
use tch::Device;

use crate::config::RunConfig;
use crate::failure::{Context, Result};

/// Images on a sheet.
const NUM_IMAGES: usize = 8;

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
        side: u32::try_from(config.model.image_size).unwrap_or(u32::MAX),
        mean: config.augment.mean,
        std: config.augment.std,
        device,
        threshold: None,
    };
    let pca = pca_sheet(dataset, &indices, backbone, &options)?;
    save(&pca, &dir.join("pca.png"))
}

/// The first readable ones of indices spread over the set.
fn readable(dataset: &Dataset) -> Vec<usize> {
    let len = dataset.len();
    let tried = len.min(8 * NUM_IMAGES);
    // A prime stride wanders over classes that are stored one after the other.
    let spread = (0..tried).map(|i| (i * (len / tried).max(1) + i) % len);
    spread.filter(|&i| dataset.image(i).is_ok()).take(NUM_IMAGES).collect()
}

fn save(image: &RgbImage, path: &Path) -> Result<()> {
    image.save(path).context(|| format!("{}: cannot write the picture", path.display()))
}
