//! Gray values as Pillow computes them.

use super::planes::Planes;
use simd::dispatch;

use super::lanes::{LANES, mul_high};

/// Computes Pillow's `L`: `(19595 r + 38470 g + 7471 b + 0x8000) >> 16`, which has the weights
/// 0.299, 0.587, and 0.114.
///
/// The weights sum to 65536, so green can be taken out of the products. The remaining factors fit
/// 16 bits, which SIMD multiplies twice as fast as 32 bits.
#[inline(always)]
pub(super) fn luma(r: u8, g: u8, b: u8) -> u8 {
    let (r, g, b) = (i16::from(r), i16::from(g), i16::from(b));
    let rest = i32::from(r - g) * 19595 + i32::from(b - g) * 7471;
    (i32::from(g) + ((rest + 0x8000) >> 16)) as u8
}

/// Computes [`luma`] in 16-bit lanes, of which twice as many fit a register. One value in a hundred
/// is off by one level, which is accurate enough where the gray is only blended or averaged.
#[inline(always)]
pub(super) fn near_luma(r: u8, g: u8, b: u8) -> u8 {
    let (r, g, b) = (i16::from(r), i16::from(g), i16::from(b));
    // There are seven fractional bits. Added to them are half a level, and half a bit for each
    // product, whose own lower bits are cut off.
    let rest = mul_high((r - g) << 7, 19595).wrapping_add(mul_high((b - g) << 7, 7471));
    g.wrapping_add(rest.wrapping_add(64 + 1) >> 7) as u8
}

/// Makes the image gray, in place: its three channels become equal. An image without three channels
/// is not changed.
pub fn grayscale(planes: &mut Planes) {
    planes.map_pixels(
        #[inline(always)]
        |r, g, b| {
            for i in 0..LANES {
                let value = luma(r[i], g[i], b[i]);
                (r[i], g[i], b[i]) = (value, value, value);
            }
        },
    );
}

/// Returns the mean gray value, rounded half up, as Pillow's contrast uses it. Without three
/// channels, this is the mean of all values; for an empty image, it is 0.
pub fn mean_gray(planes: &Planes) -> u8 {
    let (sum, count) = match planes.rgb() {
        Some(rgb) => (
            dispatch(
                #[inline(always)]
                || gray_sum(rgb),
            ),
            rgb[0].len(),
        ),
        None => (planes.bytes().iter().map(|&v| u64::from(v)).sum(), planes.bytes().len()),
    };
    let count = count.max(1) as u64;
    ((2 * sum + count) / (2 * count)) as u8
}

#[inline(always)]
fn gray_sum([red, green, blue]: [&[u8]; 3]) -> u64 {
    let mut sum = 0;
    let ((reds, red), (greens, green), (blues, blue)) =
        (red.as_chunks::<LANES>(), green.as_chunks::<LANES>(), blue.as_chunks::<LANES>());
    for ((r, g), b) in reds.iter().zip(greens).zip(blues) {
        let mut grays = [0; LANES];
        for i in 0..LANES {
            grays[i] = near_luma(r[i], g[i], b[i]);
        }
        // The sum of a block, at most 64 * 255, fits 16 bits.
        sum += u64::from(grays.iter().fold(0_u16, |sum, &v| sum.wrapping_add(u16::from(v))));
    }
    let rest = red.iter().zip(green).zip(blue).map(|((&r, &g), &b)| u64::from(near_luma(r, g, b)));
    sum + rest.sum::<u64>()
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    #[test]
    fn luma_equals_pillows_integer_formula_everywhere() {
        let (mut off, mut count) = (0, 0);
        for r in (0..=255).step_by(3) {
            for g in 0..=255_u32 {
                for b in (0..=255).step_by(5) {
                    let expected = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
                    assert_eq!(u32::from(luma(r as u8, g as u8, b as u8)), expected);
                    let near = u32::from(near_luma(r as u8, g as u8, b as u8));
                    assert!(near.abs_diff(expected) <= 1);
                    off += u32::from(near != expected);
                    count += 1;
                }
            }
        }
        assert!(off * 100 <= count, "{off} of {count}");
    }

    #[test]
    fn the_mean_is_rounded_half_up() {
        let image = RgbImage::from_fn(2, 1, |x, _| if x == 0 { Rgb([8; 3]) } else { Rgb([11; 3]) });
        assert_eq!(mean_gray(&Planes::from_rgb(&image)), 10); // 9.5
        assert_eq!(mean_gray(&Planes::default()), 0);
    }
}
