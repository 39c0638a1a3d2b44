//! Color jitter on 8-bit values with Pillow's rounding.
//!
//! Brightness, contrast, and saturation are blends `base + factor * (value - base)` with black, the
//! rounded mean gray of the image, and the gray of the pixel; results are truncated towards zero
//! and clipped to 0-255. The hue is rotated as in Pillow's 8-bit HSV, up to the deviations of
//! [`hue`].
//!
//! # Deviations
//! Factors are rounded to 1/8192 (16-bit fixed point), which changes values by at most one level;
//! how many values change depends on the factor and on the image.

use super::gray::{mean_gray, near_luma};
use super::lanes::{LANES, mul_high};
use super::planes::Planes;

/// Largest factor of a blend; larger ones are clamped to it.
const MAX_FACTOR: f64 = 3.99;

/// Converts the factor of a blend to 13 fractional bits.
fn fixed(factor: f64) -> i16 {
    (factor.clamp(0.0, MAX_FACTOR) * 8192.0).round() as i16
}

/// Computes `base + factor * (value - base)`, rounded down and clipped.
///
/// The difference is shifted up by 7 bits, the factor has 13 fractional bits, and the high half of
/// the product drops 16 bits. This leaves 4 fractional bits, which the last shift rounds down. All
/// values fit 16-bit lanes.
#[inline(always)]
fn blend(value: u8, base: u8, factor: i16) -> u8 {
    let difference = (i16::from(value) - i16::from(base)) << 7;
    let scaled = mul_high(difference, factor);
    // The sum cannot overflow. It is computed with wrapping, because an overflow check would
    // prevent the vectorization of the loops.
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

/// Blends the image with black: factor 0 gives black, and 1 changes nothing.
pub fn brightness(planes: &mut Planes, factor: f64) {
    blend_all(planes, 0, fixed(factor));
}

/// Blends the image with its mean gray: factor 0 gives that gray, and 1 changes nothing.
pub fn contrast(planes: &mut Planes, factor: f64) {
    let mean = mean_gray(planes);
    blend_all(planes, mean, fixed(factor));
}

/// Blends each pixel with its gray value: factor 0 gives a gray image, and 1 changes nothing. An
/// image without three channels has no color and is not changed.
pub fn saturation(planes: &mut Planes, factor: f64) {
    let factor = fixed(factor);
    planes.map_pixels(
        #[inline(always)]
        |r, g, b| {
            let mut gray = [0; LANES];
            for i in 0..LANES {
                gray[i] = near_luma(r[i], g[i], b[i]);
            }
            for channel in [r, g, b] {
                for i in 0..LANES {
                    channel[i] = blend(channel[i], gray[i], factor);
                }
            }
        },
    );
}

/// Rotates the hue by `turns` (-0.5 to 0.5 of the color circle), which is truncated to a multiple
/// of 1/255 as in the reference. Gray is not changed, and neither is an image without three
/// channels.
///
/// # Deviations
/// The reference goes through 8-bit HSV and therefore rounds the hue of each pixel to 1/255 of a
/// turn and its saturation to 1/255. Here, only the result is rounded. The reference rounds the hue
/// down, by half a step on average, which is compensated for here. Over all colors, values differ
/// by up to 4 levels, and by 0.36 on average.
pub fn hue(planes: &mut Planes, turns: f64) {
    let steps = (turns * 255.0).trunc().rem_euclid(255.0) - 0.5;
    // Sixths of a turn, -3 to 3, with 13 fractional bits.
    let sixths = (steps / 255.0 + 0.5).rem_euclid(1.0) * 6.0 - 3.0;
    let shift = (sixths * 8192.0).round() as i16;
    planes.map_pixels(
        #[inline(always)]
        |r, g, b| {
            for i in 0..LANES {
                [r[i], g[i], b[i]] = turn_hue([r[i], g[i], b[i]], shift);
            }
        },
    );
}

/// Number of fractional bits of hues.
const HUE_BITS: u32 = 3;

/// Rotates the hue of one pixel, without branches and in 16-bit lanes, so that the loop vectorizes.
///
/// Hues are in sixths of a turn times the pixel's chroma, so no division is needed, and values up
/// to 9 * 255 fit with [`HUE_BITS`] fractional bits. `shift` is in sixths of a turn with 13
/// fractional bits.
#[inline(always)]
fn turn_hue([r, g, b]: [u8; 3], shift: i16) -> [u8; 3] {
    let (max, min) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = i16::from(max.wrapping_sub(min));
    let (red, green, blue) = (i16::from(r), i16::from(g), i16::from(b));
    // The hue is measured from the largest color.
    let from_green = if g == max { (blue - red) + 2 * chroma } else { (red - green) + 4 * chroma };
    let sixths = if r == max { green - blue } else { from_green };
    let sixths = if sixths < 0 { sixths + 6 * chroma } else { sixths };
    let turned = (sixths << HUE_BITS).wrapping_add(mul_high(chroma << 6, shift));
    let one = chroma << HUE_BITS;
    // A hue byte has 255 steps per turn but wraps after 256.
    let step = (chroma * (6 << HUE_BITS)) >> 8;
    let whole = 6 * one + step;
    let turned = if turned < 0 { turned.wrapping_add(whole) } else { turned };
    let turned = if turned >= whole { turned.wrapping_sub(whole) } else { turned };
    let rounded = |above_min: i16| -> u8 {
        let above_min = above_min.clamp(0, one) + (1 << (HUE_BITS - 1));
        min.wrapping_add((above_min >> HUE_BITS) as u8)
    };
    let apart = |from: i16| turned.wrapping_sub(from).wrapping_abs();
    [
        rounded(apart(3 * one) - one),
        rounded(2 * one - apart(2 * one)),
        rounded(2 * one - apart(4 * one)),
    ]
}

#[cfg(test)]
#[cfg(feature = "decode")]
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
        let gray = near_luma(10, 200, 60);
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
        // 1/3 of a turn is exactly 85 of 255 steps, minus half a step, which is 3 levels here.
        assert_eq!(apply([255, 0, 0], |p| hue(p, 1.0 / 3.0)), [3, 255, 0]);
        assert_eq!(apply([255, 0, 0], |p| hue(p, -1.0 / 3.0)), [3, 0, 255]);
        assert_eq!(apply([20, 70, 20], |p| hue(p, 1.0 / 3.0)), [20, 21, 70]);
        assert_eq!(apply([90, 90, 90], |p| hue(p, 0.3)), [90; 3]);
    }

    /// Pillow's conversion to 8-bit HSV and back, in plain floats.
    fn through_bytes(pixel: [u8; 3], steps: i32) -> [u8; 3] {
        let [r, g, b] = pixel.map(f64::from);
        let (max, min) = (r.max(g).max(b), r.min(g).min(b));
        let chroma = max - min;
        if chroma == 0.0 {
            return pixel;
        }
        let sixths = if r == max {
            (g - b) / chroma
        } else if g == max {
            2.0 + (b - r) / chroma
        } else {
            4.0 + (r - g) / chroma
        };
        let hue = ((sixths / 6.0 + 1.0).fract() * 255.0) as i32;
        let saturation = (chroma / max * 255.0).floor() / 255.0;
        let sixths = f64::from((hue + steps) & 255) * 6.0 / 255.0;
        [5.0, 3.0, 1.0].map(|offset: f64| {
            let k = (sixths + offset) % 6.0;
            (max * (1.0 - saturation * k.min(4.0 - k).clamp(0.0, 1.0))).round() as u8
        })
    }

    #[test]
    fn hues_are_near_those_of_8_bit_hsv() {
        for steps in [-25_i32, -8, 1, 13, 25] {
            let (mut sum, mut count, mut worst) = (0_u64, 0, 0);
            for r in (0..=255).step_by(5) {
                for g in (0..=255).step_by(3) {
                    let line = RgbImage::from_fn(256, 1, |b, _| Rgb([r, g, b].map(|v| v as u8)));
                    let mut planes = Planes::from_rgb(&line);
                    hue(
                        &mut planes,
                        f64::from(steps) / 255.0 + 1e-9_f64.copysign(f64::from(steps)),
                    );
                    for (got, from) in planes.to_rgb().pixels().zip(line.pixels()) {
                        let expected = through_bytes(from.0, steps);
                        for (a, b) in got.0.iter().zip(expected) {
                            worst = worst.max(a.abs_diff(b));
                            sum += u64::from(a.abs_diff(b));
                            count += 1;
                        }
                    }
                }
            }
            let mean = sum as f64 / f64::from(count);
            println!("{steps} steps: mean {mean:.3}, largest {worst}");
            assert!(worst <= 4 && mean < 0.4, "{steps} steps: mean {mean}, largest {worst}");
        }
    }
}
