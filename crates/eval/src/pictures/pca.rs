//! Patch features as colors.

use augment::EvalTransform;
use data::Dataset;
use image::{Rgb, RgbImage};
use model::normalize::Normalize;
use model::{Mode, VisionTransformer};
use tch::{Device, Kind, Tensor};

use super::sheet::{enlarge, lay_out, zoom};
use crate::error::{Error, Result};
use crate::pca::Pca;

/// Minimum number of foreground patches for colors; below it, every patch counts as foreground.
const FEWEST_FOREGROUND: i64 = 4;

/// Provides one vector per patch of an image.
pub trait PatchExtractor {
    /// Computes features from normalized `[1, 3, H, W]` to `[N, D]` in fp32, with patches in
    /// row-major order from the top left, and the rows and columns of the grid.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the image.
    fn patches(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))>;
}

impl PatchExtractor for VisionTransformer {
    /// Patch tokens after the final norm.
    fn patches(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))> {
        let tokens = tch::no_grad(|| self.forward(image, Mode::Eval))?;
        Ok((tokens.patches.flatten(0, 1).to_kind(Kind::Float), tokens.grid)) // [1, N, D] -> [N, D]
    }
}

/// Options of the sheet.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PcaOptions {
    /// Side of the square that the model sees, in pixels; a multiple of the patch size.
    pub side: u32,
    /// Mean and standard deviation of each channel on the scale [0, 1].
    pub normalize: Normalize,
    /// Device of the model.
    pub device: Device,
    /// A patch is foreground if the first component, scaled to [0, 1] over all images, is above
    /// this value; `None` uses the mean.
    pub threshold: Option<f64>,
}

impl PcaOptions {
    /// Uses the mean of the first component as the threshold for foreground, on the CPU.
    pub fn new(side: u32, normalize: Normalize) -> Self {
        Self { side, normalize, device: Device::Cpu, threshold: None }
    }
}

/// Draws one column per image: the image, the first three principal components of its patch
/// features as red, green, and blue, and the same for the foreground only, on black. All images
/// share the components, so a color has the same meaning across the sheet.
///
/// The first component determines the foreground; its sign is chosen so that patches at the
/// borders of the images are background on average.
///
/// # Errors
/// Returns an error if there is no index, an image cannot be read, or the model does not accept
/// the side.
///
/// # Source
/// The picture of the DINOv2 paper (figure 1), according to its description.
pub fn pca_sheet(
    dataset: &Dataset,
    indices: &[usize],
    extractor: &dyn PatchExtractor,
    options: &PcaOptions,
) -> Result<RgbImage> {
    if indices.is_empty() {
        return Err(Error::Setting { key: "images", problem: "needs at least one".to_owned() });
    }
    let transform = EvalTransform { resize: options.side, crop: options.side };
    let (mut images, mut features, mut grid) = (Vec::new(), Vec::new(), (0, 0));
    for &index in indices {
        let image = dataset.image(index)?;
        let image = transform.apply((&image).into())?;
        let side = options.side as usize;
        let input = options.normalize.apply(image.data(), [1, side, side], options.device)?;
        let (patches, found) = extractor.patches(&input)?;
        features.push(patches.to_device(Device::Cpu));
        grid = found;
        images.push(image.to_rgb());
    }
    let features = Tensor::cat(&features, 0); // -> [images N, D]
    let everything = Tensor::ones([features.size()[0]], (Kind::Bool, Device::Cpu));
    let foreground = foreground(&features, grid, options.threshold)?;
    let maps = |mask: &Tensor| -> Result<Vec<RgbImage>> {
        Ok(paint(&colors(&features, mask)?, mask, grid))
    };
    let factor = zoom(options.side);
    let side = options.side * factor;
    let fit = |map: &RgbImage| {
        image::imageops::resize(map, side, side, image::imageops::FilterType::Nearest)
    };
    let images = images.iter().map(|image| enlarge(image, factor)).collect();
    let plain = maps(&everything)?.iter().map(fit).collect();
    let masked = maps(&foreground)?.iter().map(fit).collect();
    Ok(lay_out(&[images, plain, masked]))
}

/// Returns which patches show the object, `[n]` bool.
fn foreground(features: &Tensor, grid: (i64, i64), threshold: Option<f64>) -> Result<Tensor> {
    let first = Pca::fit(features, 1)?.project(features).select(1, 0); // [n, D] -> [n]
    let border = border(grid, first.size()[0]);
    let at_border = first.masked_select(&border).mean(Kind::Double).double_value(&[]);
    let first = if at_border > 0.0 { -first } else { first }; // the mean over all patches is 0
    let mask = match threshold {
        None => first.gt(0.0),
        Some(threshold) => {
            unit_range(&first.unsqueeze(1), &first.unsqueeze(1)).squeeze_dim(1).gt(threshold)
        }
    };
    let count = mask.sum(Kind::Int64).int64_value(&[]);
    Ok(if count < FEWEST_FOREGROUND { Tensor::ones_like(&mask) } else { mask })
}

/// Patches in the first or last row or column of their image, `[n]` bool.
fn border((rows, cols): (i64, i64), total: i64) -> Tensor {
    let on_edge = |i: i64| {
        let (row, col) = (i % (rows * cols) / cols, i % cols);
        row == 0 || row == rows - 1 || col == 0 || col == cols - 1
    };
    Tensor::from_slice(&(0..total).map(on_edge).collect::<Vec<_>>())
}

/// Red, green, and blue on the scale [0, 1] for each patch, `[n, 3]`; components and range are
/// computed from the patches in `mask`.
fn colors(features: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let chosen = features.index_select(0, &mask.nonzero().flatten(0, -1)); // [n, D] -> [m, D]
    let pca = Pca::fit(&chosen, 3)?;
    Ok(unit_range(&pca.project(features), &pca.project(&chosen)).clamp(0.0, 1.0))
}

/// Scales the columns of `values` so that the range of the same column of `reference` is [0, 1]; a
/// constant column becomes 0.5.
fn unit_range(values: &Tensor, reference: &Tensor) -> Tensor {
    let low = reference.amin([0].as_slice(), true); // [m, k] -> [1, k]
    let range = reference.amax([0].as_slice(), true) - &low;
    let flat = range.le(1e-12);
    let scaled = (values - &low) / range.clamp_min(1e-12);
    scaled.where_self(&flat.logical_not(), &Tensor::from(0.5f64))
}

/// Draws one small image of `cols x rows` pixels per grid of patches; black outside the mask.
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
    use super::*;

    /// Two images of a 6 x 6 grid whose inner 4 x 4 patches are far from the border's.
    fn framed() -> Tensor {
        let steps = Tensor::arange(72 * 5, (Kind::Double, Device::Cpu));
        let noise = (steps.square() * 0.37).sin().view([72, 5]);
        let inside = border((6, 6), 72).logical_not().to_kind(Kind::Double).unsqueeze(1);
        let direction = Tensor::from_slice(&[0.0, -8.0, 1.0, 0.0, 3.0]);
        noise + inside * direction
    }

    #[test]
    fn the_border_is_background() {
        for features in [framed(), -framed()] {
            for threshold in [None, Some(0.5)] {
                let mask = foreground(&features, (6, 6), threshold).unwrap();
                assert_eq!(mask, border((6, 6), 72).logical_not(), "{threshold:?}");
            }
        }
    }

    #[test]
    fn colors_use_the_whole_range_of_the_foreground() {
        let features = framed();
        let mask = foreground(&features, (6, 6), None).unwrap();
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
        let mask = foreground(&features, (4, 4), None).unwrap();
        let maps = paint(&colors(&features, &mask).unwrap(), &mask, (4, 4));
        assert!(maps[0].pixels().all(|p| p.0 == [128; 3]));
    }
}
