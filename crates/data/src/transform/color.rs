//! Colour jitter on 8-bit values with Pillow's rounding.
//!
//! Brightness, contrast and saturation are blends `base + factor * (value - base)` with black,
//! the rounded mean grey of the image, and the grey of the pixel; results are cut off towards
//! zero and clipped to 0-255. Hue turns the hue byte of Pillow's 8-bit HSV.
//!
//! # Deviations
//! Factors are rounded to 1/8192 (16-bit fixed point), which changes values by at most one level;
//! how many depends on the factor and on the image.

use super::gray::{luma, mean_gray};
use super::planes::Planes;
use super::simd::{LANES, mul_high};

/// Largest factor of a blend; larger ones are cut to it.
const MAX_FACTOR: f64 = 3.99;

/// A blend's factor with 13 fractional bits.
fn fixed(factor: f64) -> i16 {
    (factor.clamp(0.0, MAX_FACTOR) * 8192.0).round() as i16
}

/// `base + factor * (value - base)`, floored and clipped.
///
/// The difference has 7 bits added, the factor has 13 and the high half of the product drops 16:
/// 4 fractional bits remain, which the last shift floors. All of it stays in 16-bit lanes.
#[inline(always)]
fn blend(value: u8, base: u8, factor: i16) -> u8 {
    let difference = (i16::from(value) - i16::from(base)) << 7;
    let scaled = mul_high(difference, factor);
    // Cannot overflow; said to wrap, because a check would keep the loops from vectorising.
    (scaled.wrapping_add(i16::from(base) << 4) >> 4).clamp(0, 255) as u8
}

fn blend_all(planes: &mut Planes, base: u8, factor: i16) {
    planes.map(
        #[inline(always)]
        |block| {
            for value in block {
                *value = blend(*value, base, factor);
            }
        },
    );
}

/// Blends with black: factor 0 is black, 1 changes nothing.
pub fn brightness(planes: &mut Planes, factor: f64) {
    blend_all(planes, 0, fixed(factor));
}

/// Blends with the image's mean grey: factor 0 is that grey, 1 changes nothing.
pub fn contrast(planes: &mut Planes, factor: f64) {
    let mean = mean_gray(planes);
    blend_all(planes, mean, fixed(factor));
}

/// Blends with the pixel's grey: factor 0 is a grey image, 1 changes nothing. Without three
/// channels there is no colour, and nothing changes.
pub fn saturation(planes: &mut Planes, factor: f64) {
    let factor = fixed(factor);
    planes.map_pixels(
        #[inline(always)]
        |r, g, b| {
            let mut gray = [0; LANES];
            for i in 0..LANES {
                gray[i] = luma(r[i], g[i], b[i]);
            }
            for channel in [r, g, b] {
                for i in 0..LANES {
                    channel[i] = blend(channel[i], gray[i], factor);
                }
            }
        },
    );
}

/// Turns the hue by `turns` (-0.5 to 0.5 of the colour circle).
///
/// As in the reference the shift is cut to a multiple of 1/255 and the pixel passes through
/// 8-bit HSV, which costs a few levels even where the shift is zero. Without three channels
/// nothing changes.
pub fn hue(planes: &mut Planes, turns: f64) {
    let shift = (turns * 255.0).trunc() as i32 & 255;
    // Half a step less plus a little: the rounding below then truncates. The little one is
    // below the smallest distance, 1/510, between a hue and the next integer.
    let shift = shift as f32 - 0.5 + 1.0 / 1024.0;
    planes.map_pixels(
        #[inline(always)]
        |r, g, b| {
            for i in 0..LANES {
                [r[i], g[i], b[i]] = turn_hue([r[i], g[i], b[i]], shift);
            }
        },
    );
}

/// One pixel through HSV and back, without branches so that the loop vectorises.
///
/// `shift` is in steps of 1/255 turn, less half a step (see [`hue`]).
#[inline(always)]
fn turn_hue([r, g, b]: [u8; 3], shift: f32) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let (rf, gf, bf) = (f32::from(r), f32::from(g), f32::from(b));
    let chroma = f32::from(max.wrapping_sub(min));
    let value = f32::from(max);
    // Sixths of a turn, -1 to 5, from the colour that is largest.
    let (difference, sector) = if r == max {
        (gf - bf, 0.0)
    } else if g == max {
        (bf - rf, 2.0)
    } else {
        (rf - gf, 4.0)
    };
    // One division for the two of the formula.
    let (chroma_or_one, value_or_one) = (chroma.max(1.0), value.max(1.0));
    let inverse = 1.0 / (chroma_or_one * value_or_one);
    let sixths = difference * (inverse * value_or_one) + sector;
    let turned = if sixths < 0.0 { sixths + 6.0 } else { sixths };
    let hue = (round_byte(turned * 42.5 + shift)) as i32;
    // A grey pixel has chroma 0 and so no saturation; its hue does not matter.
    let saturation = f32::from(round_byte(chroma * 255.0 * (inverse * chroma_or_one) - 0.498));
    let strength = value * saturation * (1.0 / 255.0);
    let sixths = hue as f32 * (6.0 / 255.0);
    [5.0, 3.0, 1.0].map(|offset: f32| {
        let k = sixths + offset;
        let k = if k >= 6.0 { k - 6.0 } else { k };
        round_byte(value - strength * k.min(4.0 - k).clamp(0.0, 1.0))
    })
}

/// The nearest integer's low byte, for -2^21 < x < 2^21: adding 1.5 * 2^23 leaves it in the
/// low bits of the float. Unlike `as u8` it needs no branch and wraps.
#[inline(always)]
fn round_byte(x: f32) -> u8 {
    (x + 12_582_912.0).to_bits() as u8
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage};

    use super::*;

    fn apply(pixel: [u8; 3], op: impl Fn(&mut Planes)) -> [u8; 3] {
        let mut planes = Planes::from_rgb(&RgbImage::from_pixel(3, 2, Rgb(pixel)));
        op(&mut planes);
        planes.to_rgb().get_pixel(1, 1).0
    }

    #[test]
    fn factor_one_changes_nothing() {
        for pixel in [[0, 0, 0], [255, 255, 255], [1, 77, 254]] {
            assert_eq!(apply(pixel, |p| brightness(p, 1.0)), pixel);
            assert_eq!(apply(pixel, |p| contrast(p, 1.0)), pixel);
            assert_eq!(apply(pixel, |p| saturation(p, 1.0)), pixel);
        }
    }

    #[test]
    fn factor_zero_is_the_base() {
        let pixel = [10, 200, 60];
        let gray = luma(10, 200, 60);
        assert_eq!(apply(pixel, |p| brightness(p, 0.0)), [0; 3]);
        assert_eq!(apply(pixel, |p| contrast(p, 0.0)), [gray; 3]);
        assert_eq!(apply(pixel, |p| saturation(p, 0.0)), [gray; 3]);
    }

    #[test]
    fn blends_are_cut_towards_zero_and_clipped() {
        assert_eq!(apply([3, 100, 250], |p| brightness(p, 1.25)), [3, 125, 255]);
        assert_eq!(apply([0, 200, 100], |p| saturation(p, 1.5))[0], 0);
    }

    #[test]
    fn a_third_of_a_turn_moves_the_channels_round() {
        // 1/3 turn is 85 of 255 steps, exactly.
        assert_eq!(apply([255, 0, 0], |p| hue(p, 1.0 / 3.0)), [0, 255, 0]);
        assert_eq!(apply([255, 0, 0], |p| hue(p, -1.0 / 3.0))[2], 255);
        assert_eq!(apply([90, 90, 90], |p| hue(p, 0.3)), [90; 3]);
    }
}
