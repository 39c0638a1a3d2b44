//! Converts YCbCr to RGB with plain loops, in fixed point with 16 fractional bits, rounded as in
//! libjpeg.
//!
//! These loops are used on machines that [`crate::x86`] does not support, and by its tests.

use crate::idct::WIDE;

/// [`WIDE`] samples of a component.
pub(crate) type Line = [u8; WIDE];
/// [`WIDE`] pixels.
pub(crate) type RgbLine = [u8; 3 * WIDE];

/// Factor of Cr in red, 1.402, minus 1.
pub(crate) const CR_RED: i16 = 26345;
/// Factor of Cb in blue, 1.772, minus 2.
pub(crate) const CB_BLUE: i16 = -14942;
/// Factors of Cb and Cr in green: -0.34414, and -0.71414 plus 1.
pub(crate) const GREEN: [i16; 2] = [-22554, 18734];

/// Computes the pixels of a line.
#[inline(always)]
pub(crate) fn to_rgb(y: &Line, cb: &Line, cr: &Line) -> RgbLine {
    // The channels are computed separately, and in 16 bits where these suffice, which compilers
    // vectorize well.
    let mut channels = [[0; WIDE]; 3];
    for i in 0..WIDE {
        let (y, cb, cr) = (i16::from(y[i]), i16::from(cb[i]) - 128, i16::from(cr[i]) - 128);
        let green = product(GREEN[0], cb) + product(GREEN[1], cr);
        channels[0][i] = clip(y + cr + rounded(product(CR_RED, cr)));
        channels[1][i] = clip(y - cr + rounded(green));
        channels[2][i] = clip(y + 2 * cb + rounded(product(CB_BLUE, cb)));
    }
    let mut rgb = [0; 3 * WIDE];
    for i in 0..WIDE {
        for c in 0..3 {
            rgb[3 * i + c] = channels[c][i];
        }
    }
    rgb
}

/// Returns the visible value of a color under black ink. Both are stored inverted, with 255 for no
/// ink. The formula and its rounding are Pillow's.
#[inline(always)]
pub fn ink(color: u8, black: u8) -> u8 {
    let product = u32::from(255 - color) * u32::from(black) + 128;
    black - ((product + (product >> 8)) >> 8) as u8
}

#[inline(always)]
fn product(a: i16, b: i16) -> i32 {
    i32::from(a) * i32::from(b)
}

/// Rounds away the fractional bits.
#[inline(always)]
fn rounded(sum: i32) -> i16 {
    ((sum + (1 << 15)) >> 16) as i16
}

#[inline(always)]
fn clip(value: i16) -> u8 {
    value.clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_factors_give_the_same_integers() {
        let rounded = |sum: i32| (sum + (1 << 15)) >> 16;
        for (y, cb) in (0..256).flat_map(|cb| [0, 77, 128, 255].map(|y| (y, cb))) {
            for start in (0..256).step_by(WIDE) {
                let crs: Line = std::array::from_fn(|i| (start + i) as u8);
                let rgb = to_rgb(&[y as u8; WIDE], &[cb as u8; WIDE], &crs);
                for (pixel, cr) in rgb.as_chunks::<3>().0.iter().zip(start as i32..) {
                    let (cb, cr) = (cb - 128, cr - 128);
                    let expected = [
                        y + rounded(91881 * cr),
                        y + rounded(-22554 * cb - 46802 * cr),
                        y + rounded(116130 * cb),
                    ];
                    assert_eq!(*pixel, expected.map(|value| value.clamp(0, 255) as u8));
                }
            }
        }
    }
}
