//! Pictures of patch features as colors.

use image::{Rgb, RgbImage};
use model::normalize::Normalize;
use model::{Mode, VisionTransformer};
use tch::{Device, Kind, Tensor};

use super::foreground::{of_all, of_each, unit_range};
use super::scene::{Scene, fit};
use super::sheet::Row;
use crate::error::Result;
use crate::features::{check_finite, heads_side_by_side};
use crate::pca::Pca;

/// A network that provides one vector per patch of an image.
pub trait PatchExtractor {
    /// Computes the features `[N, D]` in fp32 of a normalized image `[1, C, H, W]`, with patches in
    /// row-major order, and returns them with the numbers of rows and columns of patches.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the image.
    fn patches(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))>;
}

impl PatchExtractor for VisionTransformer {
    /// Returns the patch tokens after the final norm.
    fn patches(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))> {
        let tokens = tch::no_grad(|| self.forward(image, Mode::Eval))?;
        Ok((tokens.patches.flatten(0, 1).to_kind(Kind::Float), tokens.grid)) // [1, N, D] -> [N, D]
    }
}

/// Provides the keys of the last block's attention, with heads concatenated, instead of patch
/// tokens.
#[derive(Debug)]
pub struct PatchKeys<'a>(pub &'a VisionTransformer);

impl PatchExtractor for PatchKeys<'_> {
    fn patches(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))> {
        let [_, keys, _] = tch::no_grad(|| self.0.last_qkv(image))?;
        let (size, config) = (image.size(), self.0.config());
        let grid = (size[2] / config.patch_size, size[3] / config.patch_size);
        Ok((heads_side_by_side(&keys, config).to_kind(Kind::Float), grid))
    }
}

/// What a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PcaView {
    /// All patches.
    All,
    /// The foreground on black.
    Foreground,
}

/// Options of the rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PcaOptions {
    /// Mean and standard deviation of each channel for values on the scale [0, 1].
    pub normalize: Normalize,
    /// Device of the model.
    pub device: Device,
    /// If `None`, the foreground is found in each image separately. Otherwise, a patch is
    /// foreground if the first component of all images together, scaled to [0, 1], is above this
    /// value.
    pub threshold: Option<f64>,
    /// The rows to draw.
    pub views: Vec<PcaView>,
}

impl PcaOptions {
    /// Returns options that draw all patches, and then the foreground of each image, on the CPU.
    pub fn new(normalize: Normalize) -> Self {
        let views = vec![PcaView::All, PcaView::Foreground];
        Self { normalize, device: Device::Cpu, threshold: None, views }
    }
}

/// Rows of one network.
#[derive(Debug)]
pub struct PcaRows {
    /// One row per view.
    pub rows: Vec<Row>,
    /// Positions of images in which no foreground stands out; they are shown whole.
    pub whole: Vec<usize>,
}

/// Draws a row per view with one column per image: the first three principal components of patch
/// features as red, green, and blue. The components are computed from all shown patches of all
/// images, so a color has the same meaning across a row.
///
/// By default, the foreground of an image is found by its own first component: Otsu's threshold
/// divides the patches, and the part that is rarer at the border is the foreground.
///
/// # Errors
/// Returns an error if there is no image, an image cannot be read, the model does not accept the
/// side, or features are not finite.
///
/// # Source
/// Figure 1 of the DINOv2 paper, following its description.
///
/// # Deviations
/// The paper finds the foreground of all images with one component and one threshold, as with
/// `threshold`.
pub fn pca_rows(
    scene: &Scene<'_>,
    label: &str,
    extractor: &dyn PatchExtractor,
    options: &PcaOptions,
) -> Result<PcaRows> {
    let (mut features, mut grid) = (Vec::new(), (0, 0));
    for input in scene.inputs(&options.normalize, options.device)? {
        let (patches, found) = extractor.patches(&input)?;
        features.push(patches.to_device(Device::Cpu));
        grid = found;
    }
    let features = Tensor::cat(&features, 0); // -> [images N, D]
    check_finite(&features, "shown")?;
    let (mut rows, mut whole) = (Vec::new(), Vec::new());
    for view in &options.views {
        let (mask, name) = match view {
            PcaView::All => (
                Tensor::ones([features.size()[0]], (Kind::Bool, Device::Cpu)),
                "principal components",
            ),
            PcaView::Foreground => {
                let found = match options.threshold {
                    None => of_each(&features, grid)?,
                    Some(threshold) => of_all(&features, grid, threshold)?,
                };
                whole = found.whole;
                (found.mask, "foreground")
            }
        };
        let maps = paint(&colors(&features, &mask)?, &mask, grid);
        rows.push(Row::new(format!("{label}: {name}"), maps.iter().map(fit).collect()));
    }
    Ok(PcaRows { rows, whole })
}

/// Returns red, green, and blue on the scale [0, 1] for each patch, `[n, 3]`. Components and ranges
/// are computed from the patches in `mask`.
fn colors(features: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let chosen = features.index_select(0, &mask.nonzero().flatten(0, -1)); // [n, D] -> [m, D]
    let pca = Pca::fit(&chosen, 3)?;
    Ok(unit_range(&pca.project(features), &pca.project(&chosen)).clamp(0.0, 1.0))
}

/// Draws one image of `cols x rows` pixels per grid of patches, black outside the mask.
fn paint(colors: &Tensor, mask: &Tensor, (rows, cols): (i64, i64)) -> Vec<RgbImage> {
    let levels = (colors * 255.0).round() * mask.unsqueeze(1).to_kind(Kind::Double);
    let per_image = levels.to_kind(Kind::Uint8).view([-1, rows, cols, 3]); // [n, 3] -> [images, h, w, 3]
    (0..per_image.size()[0])
        .map(|i| {
            let image = per_image.select(0, i).contiguous();
            let mut pixels = vec![0u8; image.numel()];
            image.copy_data_u8(&mut pixels, image.numel());
            let at = |x: u32, y: u32| 3 * (y as usize * cols as usize + x as usize);
            RgbImage::from_fn(cols as u32, rows as u32, |x, y| {
                let start = at(x, y);
                Rgb([pixels[start], pixels[start + 1], pixels[start + 2]])
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::foreground::border;
    use super::*;

    /// Returns the patches of two images with a 6 x 6 grid, whose inner 4 x 4 patches are far from
    /// the border patches.
    fn framed() -> Tensor {
        let steps = Tensor::arange(72 * 5, (Kind::Double, Device::Cpu));
        let noise = (steps.square() * 0.37).sin().view([72, 5]);
        let inside = Tensor::from_slice(&border((6, 6)).repeat(2)).logical_not();
        let direction = Tensor::from_slice(&[0.0, -8.0, 1.0, 0.0, 3.0]);
        noise + inside.to_kind(Kind::Double).unsqueeze(1) * direction
    }

    #[test]
    fn colors_use_the_whole_range_of_the_foreground() {
        let features = framed();
        let mask = of_each(&features, (6, 6)).unwrap().mask;
        let colors = colors(&features, &mask).unwrap();
        let inside = colors.index_select(0, &mask.nonzero().flatten(0, -1));
        for (value, expected) in
            [(inside.amin([0].as_slice(), false), 0.0), (inside.amax([0].as_slice(), false), 1.0)]
        {
            assert!((value - expected).abs().max().double_value(&[]) < 1e-9);
        }
        let maps = paint(&colors, &mask, (6, 6));
        assert_eq!(maps.len(), 2);
        assert_eq!(maps[1].get_pixel(0, 3).0, [0; 3]);
        assert!(maps.iter().flat_map(|m| m.pixels()).any(|p| p.0.contains(&255)));
    }

    #[test]
    fn collapsed_features_give_a_gray_map() {
        let features = Tensor::ones([16, 4], (Kind::Float, Device::Cpu));
        let mask = of_each(&features, (4, 4)).unwrap().mask;
        let maps = paint(&colors(&features, &mask).unwrap(), &mask, (4, 4));
        assert!(maps[0].pixels().all(|p| p.0 == [128; 3]));
    }
}
