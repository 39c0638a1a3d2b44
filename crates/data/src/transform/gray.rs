//! Grey values as Pillow computes them.

use super::planes::Planes;

/// Pillow's `L`: `(19595 r + 38470 g + 7471 b + 0x8000) >> 16`, the weights .299, .587, .114.
///
/// The weights sum to 65536, so green comes out of the product; what is left fits 16-bit factors,
/// which SIMD multiplies twice as fast as 32-bit ones.
#[inline(always)]
pub(super) fn luma(r: u8, g: u8, b: u8) -> u8 {
    let (r, g, b) = (i16::from(r), i16::from(g), i16::from(b));
    let rest = i32::from(r - g) * 19595 + i32::from(b - g) * 7471;
    (i32::from(g) + ((rest + 0x8000) >> 16)) as u8
}

/// Makes the image grey, in place; the three channels become equal.
pub fn grayscale(planes: &mut Planes) {
    let [red, green, blue] = planes.channels_mut();
    for ((r, g), b) in red.iter_mut().zip(green).zip(blue) {
        let value = luma(*r, *g, *b);
        (*r, *g, *b) = (value, value, value);
    }
}

/// The mean grey value, rounded half up, as Pillow's contrast uses it; 0 for an empty image.
pub fn mean_gray(planes: &Planes) -> u8 {
    let [red, green, blue] = planes.channels();
    let mut sum = 0_u64;
    // In blocks: bytes first, then their sum, each of which is a fast loop of its own.
    let mut grays = [0_u8; 1024];
    for ((r, g), b) in red.chunks(1024).zip(green.chunks(1024)).zip(blue.chunks(1024)) {
        for (((gray, &r), &g), &b) in grays.iter_mut().zip(r).zip(g).zip(b) {
            *gray = luma(r, g, b);
        }
        sum +=
            u64::from(grays[..r.len()].iter().fold(0, |sum: u32, &v| sum.wrapping_add(v.into())));
    }
    let count = red.len().max(1) as u64;
    ((2 * sum + count) / (2 * count)) as u8
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn luma_equals_pillows_integer_formula_everywhere() {
        for r in (0..=255).step_by(3) {
            for g in 0..=255_u32 {
                for b in (0..=255).step_by(5) {
                    let expected = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
                    assert_eq!(u32::from(luma(r as u8, g as u8, b as u8)), expected);
                }
            }
        }
    }

    #[test]
    fn the_mean_is_rounded_half_up() {
        let image = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([8; 3]) } else { Rgb([11; 3]) });
        assert_eq!(mean_gray(&Planes::from_rgb(&image)), 10); // 9.5
        assert_eq!(mean_gray(&Planes::default()), 0);
    }
}
