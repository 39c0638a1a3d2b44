//! Pictures of the class token's attention.

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};
use model::VisionTransformer;
use model::normalize::Normalize;
use tch::{Device, Kind, Tensor};

use super::scene::{CELL, Scene};
use super::sheet::Row;
use crate::error::{Error, Result};

/// A network that provides the attention of the class token to the patches of an image.
pub trait AttentionExtractor {
    /// Computes the attention `[heads, N]` in fp32 for a normalized image `[1, C, H, W]`, with
    /// patches in row-major order, and returns it with the numbers of rows and columns of patches.
    ///
    /// # Errors
    /// Returns an error if the model does not accept the image.
    fn attention(&self, image: &Tensor) -> Result<(Tensor, (i64, i64))>;
}

impl AttentionExtractor for VisionTransformer {
    /// Returns the class token's row of the last block's attention, without the class and register
    /// tokens.
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

/// What a row shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionView {
    /// The mean over heads, in one row.
    Mean,
    /// The images, darkened except where most of the mean attention lies, in one row.
    Mass,
    /// Each head, in its own row.
    Heads,
}

/// Options of the rows.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AttentionOptions {
    /// Mean and standard deviation of each channel for values on the scale [0, 1].
    pub normalize: Normalize,
    /// Device of the model.
    pub device: Device,
    /// Fraction of the attention that the bright patches of [`AttentionView::Mass`] contain; 0.6 in
    /// the DINO paper.
    pub mass: f64,
    /// The rows to draw.
    pub views: Vec<AttentionView>,
}

impl AttentionOptions {
    /// Returns options that draw the mean over heads, and where 60% of it lies, on the CPU.
    pub fn new(normalize: Normalize) -> Self {
        let views = vec![AttentionView::Mean, AttentionView::Mass];
        Self { normalize, device: Device::Cpu, mass: 0.6, views }
    }
}

/// Draws the attention of the class token in the last block: a row per view (or per head), with one
/// column per image.
///
/// # Errors
/// Returns an error if there is no image, the mass is not above 0 and at most 1, an image cannot be
/// read, the model does not accept the side, or the attention is not finite.
///
/// # Source
/// `visualize_attention.py` of DINO (at 7c446df); the mean over heads as in the SimDINO paper.
///
/// # Deviations
/// Images keep their aspect ratio: the shorter side is resized and the center is cropped, whereas
/// the script squeezes them into a square.
pub fn attention_rows(
    scene: &Scene<'_>,
    label: &str,
    extractor: &dyn AttentionExtractor,
    options: &AttentionOptions,
) -> Result<Vec<Row>> {
    if !(options.mass > 0.0 && options.mass <= 1.0) {
        let problem = format!("must be greater than 0 and at most 1 (got {})", options.mass);
        return Err(Error::Setting { key: "mass", problem });
    }
    let images = scene.row()?.cells;
    let mut rows: Vec<Row> = Vec::new();
    for (image, input) in images.iter().zip(scene.inputs(&options.normalize, options.device)?) {
        let column = column(image, &input, extractor, options)?;
        rows.resize(column.len(), Row::default());
        for (row, (name, cell)) in rows.iter_mut().zip(column) {
            row.label = format!("{label}: {name}");
            row.cells.push(cell);
        }
    }
    Ok(rows)
}

/// Returns the named cells of an image.
fn column(
    image: &RgbImage,
    input: &Tensor,
    extractor: &dyn AttentionExtractor,
    options: &AttentionOptions,
) -> Result<Vec<(String, RgbImage)>> {
    let (heads, grid) = extractor.attention(input)?; // [heads, N]
    let heads = heads.to_device(Device::Cpu);
    let mean = values(&heads.mean_dim([0].as_slice(), false, Kind::Float))?; // [N]
    let broken = mean.iter().filter(|value| !value.is_finite()).count();
    if broken > 0 {
        let (count, total) = (broken as i64, mean.len() as i64);
        return Err(Error::PatchesNotFinite { set: "shown", count, total });
    }
    let mut cells = Vec::new();
    for view in &options.views {
        match view {
            AttentionView::Mean => cells.push(("mean attention".to_owned(), heat(&mean, grid))),
            AttentionView::Mass => {
                let lit = spotlight(image, &mass_mask(&mean, options.mass), grid);
                cells.push((format!("{:.0}% of the mean attention", 100.0 * options.mass), lit));
            }
            AttentionView::Heads => {
                for head in 0..heads.size()[0] {
                    let map = heat(&values(&heads.select(0, head))?, grid);
                    cells.push((format!("head {}", head + 1), map));
                }
            }
        }
    }
    Ok(cells)
}

fn values(map: &Tensor) -> Result<Vec<f32>> {
    let mut values = vec![0f32; map.numel()];
    map.contiguous().f_copy_data(&mut values, map.numel())?;
    Ok(values)
}

/// Selects the fewest patches that contain at least `mass` of the attention.
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

/// Draws a map as a heat map of the size of a cell, with colors scaled to its range.
fn heat(values: &[f32], (rows, cols): (i64, i64)) -> RgbImage {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let range = (high - low).max(f32::MIN_POSITIVE);
    let small = RgbImage::from_fn(cols as u32, rows as u32, |x, y| {
        color((values[(i64::from(y) * cols + i64::from(x)) as usize] - low) / range)
    });
    imageops::resize(&small, CELL, CELL, FilterType::Nearest)
}

/// Draws the image, darkened where the mask is not set.
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

/// Maps a value in [0, 1] to a color, from dark violet through red to light yellow, with increasing
/// brightness.
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
    fn maps_fill_their_cells_and_use_the_whole_range() {
        let image = RgbImage::from_pixel(8, 8, Rgb([100; 3]));
        let map = heat(&[0.0, 1.0, 2.0, 4.0], (2, 2));
        assert_eq!(map.dimensions(), (CELL, CELL));
        let ends = (*map.get_pixel(0, 0), *map.get_pixel(CELL - 1, CELL - 1));
        assert_eq!(ends, (color(0.0), color(1.0)));
        let bright: Vec<u32> = (0..=20)
            .map(|i| color(i as f32 / 20.0).0.iter().map(|&c| u32::from(c)).sum())
            .collect();
        assert!(bright.windows(2).all(|pair| pair[0] < pair[1]), "{bright:?}");
        let lit = spotlight(&image, &[true, false, false, true], (2, 2));
        assert_eq!((lit.get_pixel(0, 0).0, lit.get_pixel(7, 0).0), ([100; 3], [20; 3]));
    }
}
