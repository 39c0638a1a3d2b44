//! Random crops of training images and their depths.

use augment::rng::{Purpose, Rng};
use data::decode::Image;
use data::dense::DepthSample;

use super::config::DepthConfig;
use crate::error::Result;
use crate::segmentation::image_of;

/// The [`Purpose::Choice`] number for crops.
const CROP: u32 = 711;
/// Range of the exponent of all values.
const GAMMA: [f64; 2] = [0.9, 1.1];
/// Range of the factor of all values.
const BRIGHTNESS: [f64; 2] = [0.75, 1.25];
/// Range of the factor of each channel.
const CHANNEL: [f64; 2] = [0.9, 1.1];

/// A crop and the depth of each of its pixels in meters; 0 marks pixels that are not learned.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Crop {
    pub(super) image: Image,
    pub(super) meters: Vec<f32>,
}

/// Cuts a random crop, mirrors it with probability 1/2, and changes its colors with probability
/// 1/2. An image smaller than the crop is padded on the right and bottom with the color `fill`.
/// Depths out of range become 0.
///
/// # Deviations
/// The reference also rotates half of the crops by up to 2.5 degrees, and crops off the white
/// border of NYU images, where depths are not measured.
pub(super) fn random_crop(
    sample: &DepthSample,
    config: &DepthConfig,
    fill: &[u8],
    epoch: u64,
    index: usize,
) -> Result<Crop> {
    let mut rng = Rng::new(config.seed, epoch, index as u64, Purpose::Choice(CROP));
    let [height, width] = config.crop;
    let (whole_width, whole_height) = sample.image.dimensions();
    let mut start = |whole: u32, side: u32| rng.index(whole.saturating_sub(side) as usize + 1);
    let (top, left) = (start(whole_height, height), start(whole_width, width));
    let channels = sample.image.channels();
    let (width, height) = (width as usize, height as usize);
    let (whole_width, whole_height) = (whole_width as usize, whole_height as usize);
    let mut pixels: Vec<u8> =
        fill.iter().copied().cycle().take(width * height * channels).collect();
    let mut meters = vec![0.0; width * height];
    let columns = width.min(whole_width);
    let range = config.min_depth as f32..=config.max_depth as f32;
    let flip = rng.chance(0.5);
    for y in 0..height.min(whole_height) {
        for x in 0..columns {
            let from = (top + y) * whole_width + left + if flip { columns - 1 - x } else { x };
            let to = y * width + x;
            let depth = sample.depth.meters[from];
            meters[to] = if range.contains(&depth) { depth } else { 0.0 };
            pixels[to * channels..(to + 1) * channels]
                .copy_from_slice(&sample.image.data()[from * channels..(from + 1) * channels]);
        }
    }
    if rng.chance(0.5) {
        recolor(&mut pixels, channels, &mut rng);
    }
    let image = image_of(pixels, (width as u32, height as u32), channels)?;
    Ok(Crop { image, meters })
}

/// Raises values on the scale [0, 1] to a power, then multiplies all of them and each channel by
/// random factors.
fn recolor(pixels: &mut [u8], channels: usize, rng: &mut Rng) {
    let mut within = |range: [f64; 2]| rng.uniform(range[0], range[1]);
    let (gamma, brightness) = (within(GAMMA), within(BRIGHTNESS));
    let tables: Vec<[u8; 256]> = (0..channels)
        .map(|_| {
            let factor = brightness * within(CHANNEL);
            std::array::from_fn(|value| {
                let changed = (value as f64 / 255.0).powf(gamma) * factor;
                (255.0 * changed.clamp(0.0, 1.0)).round() as u8
            })
        })
        .collect();
    for pixel in pixels.chunks_exact_mut(channels) {
        pixel
            .iter_mut()
            .zip(&tables)
            .for_each(|(value, table)| *value = table[usize::from(*value)]);
    }
}

#[cfg(test)]
mod tests {
    use data::dense::DepthMap;

    use super::*;

    #[test]
    fn depths_follow_their_pixels() {
        let (width, height) = (30, 20);
        let meters: Vec<f32> = (0..600).map(|i| (1 + i % 200) as f32 / 20.0).collect();
        let pixels = (0..600).flat_map(|i| [(1 + i % 200) as u8; 3]).collect();
        let image = Image::new(pixels, width, height, 3).unwrap();
        let sample = DepthSample { image, depth: DepthMap { width, height, meters } };
        let mut config = DepthConfig::default();
        (config.crop, config.max_depth) = ([16, 24], 9.0);
        let (mut plain, mut crops) = (0, Vec::new());
        for epoch in 0..40 {
            let crop = random_crop(&sample, &config, &[7, 7, 7], epoch, 3).unwrap();
            let at = |i: usize| (f32::from(crop.image.data()[3 * i]) / 20.0, crop.meters[i]);
            assert!(
                crop.meters.iter().all(|&depth| depth <= 9.0),
                "what is too far is not learned"
            );
            plain += u32::from((0..16 * 24).all(|i| at(i).1 == 0.0 || at(i).0 == at(i).1));
            crops.push(crop);
        }
        assert!((10..30).contains(&plain), "{plain} of 40 keep their colors");
        assert_eq!(crops[0], random_crop(&sample, &config, &[7, 7, 7], 0, 3).unwrap());
        assert!(crops[1..].iter().all(|crop| *crop != crops[0]));
        // A crop larger than the image is padded, and nothing is learned in the padding.
        config.crop = [25, 40];
        let crop = random_crop(&sample, &config, &[7, 7, 7], 0, 0).unwrap();
        let beyond = |x: usize, y: usize| x >= 30 || y >= 20;
        for (i, &depth) in crop.meters.iter().enumerate() {
            assert!(!beyond(i % 40, i / 40) || depth == 0.0);
        }
        assert_eq!(crop.image.dimensions(), (40, 25));
    }
}
