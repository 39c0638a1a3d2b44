//! Random crops of training images and their labels.

use augment::rng::{Purpose, Rng};
use data::decode::Image;
use data::dense::{DenseSample, IGNORE, LabelMap};

use super::config::LinearConfig;
use super::photometric::Photometric;
use crate::error::Result;
use crate::segmentation::features::{image_of, resized, resized_labels};

/// The [`Purpose::Choice`] number for crops.
const CROP: u32 = 705;
/// Number of times that a crop is drawn again if a class has too large a share.
const TRIALS: usize = 10;
/// Range of the random resize factor.
const FACTORS: [f64; 2] = [0.5, 2.0];

/// A crop, and the class of each of its pixels.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Crop {
    pub(super) image: Image,
    pub(super) labels: Vec<u8>,
}

/// Returns the width and height after a resize that keeps the aspect ratio: the shorter side
/// becomes `short`, or less if the longer one would exceed `long`.
pub(super) fn fitted((width, height): (u32, u32), short: f64, long: Option<f64>) -> (u32, u32) {
    let (least, most) = (f64::from(width.min(height)), f64::from(width.max(height)));
    let factor = (short / least).min(long.map_or(f64::INFINITY, |long| long / most));
    let side = |side: u32| ((f64::from(side) * factor + 0.5) as u32).max(1);
    (side(width), side(height))
}

/// Cuts a random crop of a randomly resized image. An image smaller than the crop is padded on the
/// right and bottom with the color `fill` and ignored labels.
pub(super) fn random_crop(
    sample: &DenseSample,
    config: &LinearConfig,
    fill: &[u8],
    epoch: u64,
    index: usize,
) -> Result<Crop> {
    let mut rng = Rng::new(config.seed, epoch, index as u64, Purpose::Choice(CROP));
    let factor = rng.uniform(FACTORS[0], FACTORS[1]);
    let long = config.long_side.map(|long| f64::from(long) * factor);
    let (width, height) =
        fitted(sample.image.dimensions(), f64::from(config.short_side) * factor, long);
    let image = resized(&sample.image, width, height)?;
    let labels = resized_labels(&sample.labels, width, height);
    let mut place = || {
        let start = |side: u32, rng: &mut Rng| {
            rng.index(side.saturating_sub(config.crop) as usize + 1) as u32
        };
        let top = start(height, &mut rng);
        (start(width, &mut rng), top)
    };
    let mut at = place();
    if let Some(most) = config.max_class_share {
        for _ in 0..TRIALS {
            if largest_share(&labels, at, config.crop).is_some_and(|share| share < most) {
                break;
            }
            at = place();
        }
    }
    let mut crop = cut(&image, &labels, at, config.crop, fill)?;
    if rng.chance(0.5) {
        crop = mirrored(&crop, config.crop as usize)?;
    }
    if config.photometric {
        let mut data = crop.image.clone().into_data();
        Photometric::draw(&mut rng).apply(&mut data, crop.image.channels());
        let (width, height) = crop.image.dimensions();
        crop.image = image_of(data, (width, height), crop.image.channels())?;
    }
    Ok(crop)
}

/// Returns the share of the most frequent class among the labeled pixels of a crop, or `None` if
/// there are fewer than two classes.
fn largest_share(labels: &LabelMap, (left, top): (u32, u32), side: u32) -> Option<f64> {
    let mut counts = [0_u32; 256];
    for y in top..labels.height.min(top + side) {
        let row = (y * labels.width) as usize;
        let columns = left as usize..labels.width.min(left + side) as usize;
        labels.ids[row + columns.start..row + columns.end]
            .iter()
            .for_each(|&id| counts[usize::from(id)] += 1);
    }
    let counts = &counts[..usize::from(IGNORE)];
    let total: u32 = counts.iter().sum();
    let several = counts.iter().filter(|&&count| count > 0).count() > 1;
    several.then(|| f64::from(counts.iter().copied().max().unwrap_or(0)) / f64::from(total))
}

/// Cuts a square of this side at `(left, top)`, padded where it extends beyond the image.
pub(super) fn cut(
    image: &Image,
    labels: &LabelMap,
    (left, top): (u32, u32),
    side: u32,
    fill: &[u8],
) -> Result<Crop> {
    let channels = image.channels();
    let side = side as usize;
    let (left, top) = (left as usize, top as usize);
    let (width, height) = (labels.width as usize, labels.height as usize);
    let columns = width.saturating_sub(left).min(side);
    let mut pixels: Vec<u8> = fill.iter().copied().cycle().take(side * side * channels).collect();
    let mut ids = vec![IGNORE; side * side];
    for y in 0..height.saturating_sub(top).min(side) {
        let (from, to) = ((top + y) * width + left, y * side);
        ids[to..to + columns].copy_from_slice(&labels.ids[from..from + columns]);
        let (from, to, bytes) = (from * channels, to * channels, columns * channels);
        pixels[to..to + bytes].copy_from_slice(&image.data()[from..from + bytes]);
    }
    let image = image_of(pixels, (side as u32, side as u32), channels)?;
    Ok(Crop { image, labels: ids })
}

fn mirrored(crop: &Crop, side: usize) -> Result<Crop> {
    let channels = crop.image.channels();
    let rows = crop.image.data().chunks_exact(side * channels);
    let pixels = rows.flat_map(|row| row.chunks_exact(channels).rev().flatten()).copied().collect();
    let labels = crop.labels.chunks_exact(side).flat_map(|row| row.iter().rev()).copied().collect();
    let image = image_of(pixels, (side as u32, side as u32), channels)?;
    Ok(Crop { image, labels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segmentation::linear::Recipe;

    /// Returns an image whose first channel is its label.
    fn sample(width: u32, height: u32) -> DenseSample {
        let id = |i: u32| (i / 7 % 5) as u8;
        let ids: Vec<u8> = (0..width * height).map(id).collect();
        let pixels = ids.iter().flat_map(|&id| [id, 0, 100]).collect();
        let image = Image::new(pixels, width, height, 3).unwrap();
        DenseSample { image, labels: LabelMap { width, height, ids } }
    }

    #[test]
    fn sides_keep_their_ratio() {
        assert_eq!(fitted((480, 360), 512.0, None), (683, 512));
        assert_eq!(fitted((360, 480), 512.0, Some(2048.0)), (512, 683));
        assert_eq!(fitted((4000, 500), 512.0, Some(2048.0)), (2048, 256));
    }

    #[test]
    fn image_and_labels_are_cut_and_mirrored_alike() {
        let sample = sample(9, 6);
        let crop = cut(&sample.image, &sample.labels, (5, 2), 6, &[77, 78, 79]).unwrap();
        let mirrored = |crop: &Crop| mirrored(crop, 6).unwrap();
        for flipped in [crop.clone(), mirrored(&crop)] {
            for (pixel, &label) in flipped.image.data().chunks(3).zip(&flipped.labels) {
                assert_eq!(pixel[0], if label == IGNORE { 77 } else { label });
            }
        }
        assert_eq!(crop.labels.iter().filter(|&&id| id == IGNORE).count(), 36 - 16);
        assert_eq!(crop.labels[0], sample.labels.ids[2 * 9 + 5]);
        assert_eq!(mirrored(&crop).labels[5], crop.labels[0]);
        assert_eq!(mirrored(&mirrored(&crop)), crop);
    }

    #[test]
    fn crops_are_a_function_of_seed_epoch_and_image() {
        let sample = sample(40, 30);
        for recipe in [Recipe::Dinov3, Recipe::Ibot] {
            let config = LinearConfig::of(recipe).with_crop(24);
            let crop =
                |epoch, index| random_crop(&sample, &config, &[1, 2, 3], epoch, index).unwrap();
            assert_eq!(crop(0, 3), crop(0, 3));
            assert!(crop(0, 3) != crop(1, 3) && crop(0, 3) != crop(0, 4));
            assert_eq!(crop(5, 5).image.dimensions(), (24, 24));
        }
    }

    #[test]
    fn a_share_needs_two_classes() {
        let labels = |ids: &[u8]| LabelMap { width: 4, height: 1, ids: ids.to_vec() };
        assert_eq!(largest_share(&labels(&[1, 1, 2, IGNORE]), (0, 0), 4), Some(2.0 / 3.0));
        assert_eq!(largest_share(&labels(&[1, 1, 2, IGNORE]), (0, 0), 2), None);
        assert_eq!(largest_share(&labels(&[IGNORE; 4]), (0, 0), 4), None);
    }
}
