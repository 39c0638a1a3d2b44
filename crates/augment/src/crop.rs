//! Chooses the part of the image that a crop shows.

use crate::rng::Rng;

/// Number of attempts before the fallback.
const TRIES: usize = 10;
/// Bounds of the aspect ratio, width / height.
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];

/// A rectangle of whole pixels inside an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CropBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Number of columns, at least 1.
    pub width: u32,
    /// Number of rows, at least 1.
    pub height: u32,
}

/// Draws the box of a random resized crop in an image of `width` x `height` pixels.
///
/// The area is uniform within `scale` times the image's area, and the logarithm of width / height
/// is uniform between ln 3/4 and ln 4/3. A box that does not fit is redrawn, up to ten times; then
/// the largest centered box with an allowed ratio is used. Both sides of the image must be at least
/// 1 pixel.
///
/// # Source
/// `RandomResizedCrop.get_params` of torchvision, rounding half to even as Python does.
pub fn random_resized_crop(rng: &mut Rng, width: u32, height: u32, scale: [f64; 2]) -> CropBox {
    let area = f64::from(width) * f64::from(height);
    for _ in 0..TRIES {
        let target = area * rng.uniform(scale[0], scale[1]);
        let ratio = rng.uniform(RATIO[0].ln(), RATIO[1].ln()).exp();
        let w = (target * ratio).sqrt().round_ties_even() as u32;
        let h = (target / ratio).sqrt().round_ties_even() as u32;
        if (1..=width).contains(&w) && (1..=height).contains(&h) {
            let top = rng.index((height - h + 1) as usize) as u32;
            let left = rng.index((width - w + 1) as usize) as u32;
            return CropBox { left, top, width: w, height: h };
        }
    }
    centered_fallback(width, height)
}

/// Returns the largest centered box whose ratio lies within [`RATIO`].
fn centered_fallback(width: u32, height: u32) -> CropBox {
    let ratio = f64::from(width) / f64::from(height);
    let (w, h) = if ratio < RATIO[0] {
        (width, (f64::from(width) / RATIO[0]).round_ties_even() as u32)
    } else if ratio > RATIO[1] {
        ((f64::from(height) * RATIO[1]).round_ties_even() as u32, height)
    } else {
        (width, height)
    };
    let (w, h) = (w.clamp(1, width), h.clamp(1, height));
    CropBox { left: (width - w) / 2, top: (height - h) / 2, width: w, height: h }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::{Purpose, Rng};

    proptest! {
        #[test]
        fn boxes_lie_inside_any_image(
            (width, height, seed) in (1_u32..700, 1_u32..700, any::<u64>()),
            (low, extra) in (0.001_f64..1.0, 0.0_f64..1.0),
        ) {
            let scale = [low, low + (1.0 - low) * extra];
            let mut rng = Rng::new(seed, 0, 0, Purpose::Crop(0));
            let b = random_resized_crop(&mut rng, width, height, scale);
            prop_assert!(b.width >= 1 && b.height >= 1);
            prop_assert!(b.left + b.width <= width && b.top + b.height <= height);
        }

        #[test]
        fn a_box_has_the_asked_area_and_ratio(seed in any::<u64>()) {
            let mut rng = Rng::new(seed, 0, 0, Purpose::Crop(0));
            let b = random_resized_crop(&mut rng, 500, 400, [0.1, 0.4]);
            let area = f64::from(b.width * b.height) / 200_000.0;
            let ratio = f64::from(b.width) / f64::from(b.height);
            prop_assert!((0.098..0.402).contains(&area), "{area}");
            prop_assert!((0.74..1.35).contains(&ratio), "{ratio}");
        }
    }

    #[test]
    fn a_strip_falls_back_to_a_centered_box() {
        let mut rng = Rng::new(0, 0, 0, Purpose::Crop(0));
        let b = random_resized_crop(&mut rng, 1000, 10, [0.9, 1.0]);
        assert_eq!(b, CropBox { left: 493, top: 0, width: 13, height: 10 });
        let b = random_resized_crop(&mut rng, 10, 1000, [0.9, 1.0]);
        assert_eq!(b, CropBox { left: 0, top: 493, width: 10, height: 13 });
        assert_eq!(centered_fallback(8, 7), CropBox { left: 0, top: 0, width: 8, height: 7 });
    }
}
