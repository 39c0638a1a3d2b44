//! Solarization: bright values are inverted.

use super::planes::Planes;

/// Replaces each value `v >= threshold` by `255 - v`, in place.
///
/// The reference uses the threshold 128 (Pillow's `ImageOps.solarize`).
pub fn solarize(planes: &mut Planes, threshold: u8) {
    planes.map(
        #[inline(always)]
        |block| {
            for value in block {
                *value = if *value >= threshold { 255 - *value } else { *value };
            }
        },
    );
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn the_threshold_itself_is_inverted() {
        let mut planes = Planes::from_rgb(&RgbImage::from_pixel(1, 1, Rgb([127, 128, 255])));
        solarize(&mut planes, 128);
        assert_eq!(planes.to_rgb().as_raw(), &[127, 127, 0]);
        solarize(&mut planes, 0);
        assert_eq!(planes.to_rgb().as_raw(), &[128, 128, 255]);
    }
}
