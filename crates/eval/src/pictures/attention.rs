//! Pictures of the class token's attention.

use augment::EvalTransform;
use data::Dataset;
use data::decode::Image;
use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use model::VisionTransformer;
use model::normalize::Normalize;
use tch::{Device, Kind, Tensor};

use super::sheet::{enlarge, lay_out, zoom};
use crate::error::{Error, Result};

/// Provides the attention of the class token on the patches of an image.
pub trait AttentionExtractor {
    /// Computes attention from normalized `[1, C, H, W]` to `[heads, N]` in fp32, with patches in
    /// row-major order from the top left, and the rows and columns of the grid.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the image.
    fn attention(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))>;
}

impl AttentionExtractor for VisionTransformer {
    /// The row of the class token in the last block's maps, without itself and the registers.
    fn attention(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))> {
        let maps = tch::no_grad(|| self.last_self_attention(image))?; // [1, heads, T, T]
        let config = self.config();
        let (size, patch) = (image.size(), config.patch_size);
        let grid = (size[2] / patch, size[3] / patch);
        let patches = grid.0 * grid.1;
        let row = maps.select(0, 0).select(1, 0); // -> [heads, T]
        Ok((row.narrow(1, 1 + config.num_register_tokens, patches).to_kind(Kind::Float), grid))
    }
}

/// Options of the sheet.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// Side of the square that the model sees, in pixels; a multiple of the patch size. 480 in
    /// DINO.
    pub side: u32,
    /// Mean and standard deviation of each channel on the scale [0, 1].
    pub normalize: Normalize,
    /// Device of the model.
    pub device: Device,
    /// Fraction of the attention that the bright patches of the second map contain together; 0.6
    /// in the DINO paper.
    pub mass: f64,
    /// Whether to draw a map for each head, too, after those of their mean.
    pub heads: bool,
}

impl AttentionOptions {
    /// Uses 60 % of the attention and only the mean over heads, on the CPU.
    pub fn new(side: u32, normalize: Normalize) -> Self {
        Self { side, normalize, device: Device::Cpu, mass: 0.6, heads: false }
    }
}

/// Draws one row per image: the image, the mean attention of its heads, the image with everything
/// dark except the main mass of that attention, and, with `heads`, each head separately.
///
/// # Errors
/// Returns an error if there is no index, the mass is outside of 0 to 1, an image cannot be read,
/// or the model does not accept the side.
///
/// # Source
/// `visualize_attention.py` of DINO (at 7c446df); the mean over heads as in the SimDINO paper.
///
/// # Deviations
/// Images keep their proportions: the shorter side is resized and the center is cropped, whereas
/// the script squeezes them into a square.
pub fn attention_sheet(
    dataset: &Dataset,
    indices: &[usize],
    extractor: &dyn AttentionExtractor,
    options: &AttentionOptions,
) -> Result<RgbImage> {
    if indices.is_empty() {
        return Err(Error::Setting { key: "images", problem: "needs at least one".to_owned() });
    }
    if !(options.mass > 0.0 && options.mass <= 1.0) {
        let problem = format!("must be above 0 and at most 1 (got {})", options.mass);
        return Err(Error::Setting { key: "mass", problem });
    }
    let rows = indices.iter().map(|&index| {
        let transform = EvalTransform { resize: options.side, crop: options.side };
        let image = dataset.image(index)?;
        row(&transform.apply((&image).into())?, extractor, options)
    });
    Ok(lay_out(&rows.collect::<Result<Vec<_>>>()?))
}

fn row(
    image: &Image,
    extractor: &dyn AttentionExtractor,
    options: &AttentionOptions,
) -> Result<Vec<RgbImage>> {
    let side = options.side as usize;
    let input = options.normalize.apply(image.data(), [1, side, side], options.device)?;
    let (heads, grid) = extractor.attention(&input)?; // [heads, N]
    let heads = heads.to_device(Device::Cpu);
    let mean = heads.mean_dim([0].as_slice(), false, Kind::Float); // -> [N]
    let factor = zoom(options.side);
    let image = enlarge(&image.to_rgb(), factor);
    let mut cells = vec![image.clone(), heat(&values(&mean)?, grid, &image)];
    cells.push(spotlight(&image, &mass_mask(&values(&mean)?, options.mass), grid));
    if options.heads {
        for head in 0..heads.size()[0] {
            cells.push(heat(&values(&heads.select(0, head))?, grid, &image));
        }
    }
    Ok(cells)
}

fn values(map: &Tensor) -> Result<Vec<f32>> {
    let mut values = vec![0f32; map.numel()];
    map.contiguous().f_copy_data(&mut values, map.numel())?;
    Ok(values)
}

/// Selects patches that contain `mass` of the attention: the largest ones, until the others sum to
/// no more than the rest.
fn mass_mask(attention: &[f32], mass: f64) -> Vec<bool> {
    let mut order: Vec<usize> = (0..attention.len()).collect();
    order.sort_by(|&a, &b| attention[a].total_cmp(&attention[b]));
    let total: f64 = attention.iter().map(|&a| f64::from(a)).sum();
    let mut mask = vec![false; attention.len()];
    let mut cumulative = 0.0;
    for index in order {
        cumulative += f64::from(attention[index]) / total;
        mask[index] = cumulative > 1.0 - mass;
    }
    mask
}

/// Draws a map in colors, from its smallest to its largest value, in the size of `like`.
fn heat(values: &[f32], (rows, cols): (i64, i64), like: &RgbImage) -> RgbImage {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (high - low).max(f32::MIN_POSITIVE);
    let small = RgbImage::from_fn(cols as u32, rows as u32, |x, y| {
        color((values[(i64::from(y) * cols + i64::from(x)) as usize] - low) / range)
    });
    imageops::resize(&small, like.width(), like.height(), FilterType::Nearest)
}

/// Draws the image, dark where the mask is not set.
fn spotlight(image: &RgbImage, mask: &[bool], (rows, cols): (i64, i64)) -> RgbImage {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    let mut out = image.clone();
    for (x, y, pixel) in out.enumerate_pixels_mut() {
        let (col, row) = (i64::from(x) * cols / width, i64::from(y) * rows / height);
        if !mask[(row * cols + col) as usize] {
            pixel.0 = pixel.0.map(|level| level / 5);
        }
    }
    out
}

/// From dark violet over red to light yellow, with increasing brightness.
fn color(value: f32) -> Rgb<u8> {
    const STOPS: [[f32; 3]; 5] = [
        [8.0, 5.0, 30.0],
        [86.0, 20.0, 110.0],
        [188.0, 55.0, 84.0],
        [249.0, 142.0, 9.0],
        [252.0, 255.0, 164.0],
    ];
    let place = value.clamp(0.0, 1.0) * (STOPS.len() - 1) as f32;
    let at = (place as usize).min(STOPS.len() - 2);
    let share = place - at as f32;
    let mix = |c: usize| STOPS[at][c] + share * (STOPS[at + 1][c] - STOPS[at][c]);
    Rgb([mix(0) as u8, mix(1) as u8, mix(2) as u8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fewest_patches_that_hold_the_mass_are_shown() {
        let attention = [0.1, 0.4, 0.05, 0.3, 0.15];
        assert_eq!(mass_mask(&attention, 0.6), [false, true, false, true, false]);
        assert_eq!(mass_mask(&attention, 1.0), [true; 5]);
        assert_eq!(mass_mask(&attention, 0.1), [false, true, false, false, false]);
    }

    #[test]
    fn maps_are_as_large_as_the_image_and_use_the_whole_range() {
        let image = RgbImage::from_pixel(8, 8, Rgb([100; 3]));
        let map = heat(&[0.0, 1.0, 2.0, 4.0], (2, 2), &image);
        assert_eq!(map.dimensions(), (8, 8));
        assert_eq!((*map.get_pixel(0, 0), *map.get_pixel(7, 7)), (color(0.0), color(1.0)));
        let bright: Vec<u32> = (0..=20)
            .map(|i| color(i as f32 / 20.0).0.iter().map(|&c| u32::from(c)).sum())
            .collect();
        assert!(bright.windows(2).all(|pair| pair[0] < pair[1]), "{bright:?}");
        let lit = spotlight(&image, &[true, false, false, true], (2, 2));
        assert_eq!((lit.get_pixel(0, 0).0, lit.get_pixel(7, 0).0), ([100; 3], [20; 3]));
    }
}
