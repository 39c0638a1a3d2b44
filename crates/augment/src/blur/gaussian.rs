//! torchvision's Gaussian blur with 9 taps.
//!
//! # Source
//! `gaussian_blur` of torchvision, which computes in 32-bit floats.

use super::{Block, REACH, SCRATCH, Scratch, WIDE, block_at, widen};
use crate::planes::Planes;
use simd::dispatch;

use crate::lanes::{mul_high, put};

/// Number of fractional bits of a weight.
const WEIGHT_BITS: u32 = 15;
/// Number of fractional bits of the product of a pair (shifted up by seven bits) and a weight,
/// after its lower 16 bits are dropped. The values between the two passes have the same number.
const PRODUCT_BITS: u32 = 7 + WEIGHT_BITS - 16;
/// Half a bit for each of the five products, 2.5 in all, rounded down.
const HALF_BITS: i16 = 2;

/// Applies torchvision's Gaussian blur with 9 taps and standard deviation `sigma` in pixels, in
/// place.
///
/// # Deviations
/// This is computed in fixed point instead of 32-bit floats, so some values differ by one level.
/// Images with a side below 5 pixels, which torchvision rejects, are mirrored repeatedly.
pub fn kernel9(planes: &mut Planes, sigma: f64) {
    let (width, height) = (planes.width(), planes.height());
    if width == 0 || height == 0 {
        return;
    }
    let taps = taps(sigma);
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reserve(width, height);
        for c in 0..planes.channels() {
            let plane = planes.channel_mut(c);
            dispatch(
                #[inline(always)]
                || blur(plane, width, &taps, scratch),
            );
        }
    });
}

#[inline(always)]
fn blur(plane: &mut [u8], width: usize, taps: &[i16; REACH + 1], scratch: &mut Scratch) {
    let Scratch { lines: [line, _], planes: [middle, _] } = scratch;
    let (blocks, height) = (width.div_ceil(WIDE), plane.len() / width);
    for (row, out) in plane.chunks_exact(width).zip(middle.chunks_exact_mut(blocks)) {
        widen(row, line);
        mirror_edges(line, width);
        for (number, out) in out.iter_mut().enumerate() {
            let mut shifted = [block_at(line, 0); 2 * REACH + 1];
            for (i, shifted) in shifted.iter_mut().enumerate() {
                *shifted = block_at(line, number * WIDE + i);
            }
            *out = weigh::<7>(shifted, taps);
        }
    }
    for (y, out) in plane.chunks_exact_mut(width).enumerate() {
        let mut rows: [&[Block]; 2 * REACH + 1] = [&[]; 2 * REACH + 1];
        for (i, rows) in rows.iter_mut().enumerate() {
            let row = mirror((y + i) as isize - REACH as isize, height);
            *rows = &middle[row * blocks..(row + 1) * blocks];
        }
        for (number, out) in out.chunks_mut(WIDE).enumerate() {
            let mut near = [&rows[0][number]; 2 * REACH + 1];
            for (near, row) in near.iter_mut().zip(rows) {
                *near = &row[number];
            }
            // The values already have six fractional bits, and one more makes seven.
            let sums = weigh::<1>(near, taps);
            let mut bytes = [0; WIDE];
            for i in 0..WIDE {
                let rounded = sums[i].wrapping_add(1 << (PRODUCT_BITS - 1)) >> PRODUCT_BITS;
                bytes[i] = (rounded.clamp(-128, 127) as u8) ^ 0x80;
            }
            put(bytes, out);
        }
    }
}

/// Returns the weights of the middle and of the pairs at distances 1 to 4, which sum to one.
fn taps(sigma: f64) -> [i16; REACH + 1] {
    let weight = |x: usize| (-0.5 * (x as f64 / sigma).powi(2)).exp();
    let sum = 1.0 + 2.0 * (1..=REACH).map(weight).sum::<f64>();
    let one = f64::from(1_u32 << WEIGHT_BITS);
    let mut taps: [i16; REACH + 1] =
        std::array::from_fn(|x| (weight(x) / sum * one).round() as i16);
    // The rounding error is added to the center, so that a flat image does not change. A center of
    // one would exceed the range by its last bit.
    let beside: i32 = taps[1..].iter().map(|&w| i32::from(w)).sum();
    taps[0] = ((1 << WEIGHT_BITS) - 2 * beside).min(i32::from(i16::MAX)) as i16;
    taps
}

/// Maps an index to one in a line of `n` values, mirrored at the edges without repeating them.
fn mirror(x: isize, n: usize) -> usize {
    if n == 1 {
        return 0;
    }
    let period = 2 * (n as isize - 1);
    let x = x.rem_euclid(period);
    x.min(period - x) as usize
}

/// Writes the mirrored values into the elements before and after a line.
fn mirror_edges(line: &mut [i16], width: usize) {
    for i in 0..REACH {
        line[i] = line[REACH + mirror(i as isize - REACH as isize, width)];
        line[REACH + width + i] = line[REACH + mirror((width + i) as isize, width)];
    }
}

/// Computes the symmetric 9-tap sum over neighboring rows, with the values shifted up by `UP` bits.
///
/// Sums of pairs fit 16 bits: their magnitude is at most 2 * 128 * 2^7 = 2^15, which is reached
/// only on the negative side.
#[inline(always)]
fn weigh<const UP: u32>(rows: [&Block; 9], taps: &[i16; REACH + 1]) -> Block {
    let mut out = [0; WIDE];
    for i in 0..WIDE {
        let [a, b, c, d, middle, e, f, g, h] = rows.map(|row| row[i]);
        let pair = |one: i16, other: i16| one.wrapping_add(other) << UP;
        out[i] = mul_high(middle << UP, taps[0])
            .wrapping_add(mul_high(pair(d, e), taps[1]))
            .wrapping_add(mul_high(pair(c, f), taps[2]))
            .wrapping_add(mul_high(pair(b, g), taps[3]))
            .wrapping_add(mul_high(pair(a, h), taps[4]))
            .wrapping_add(HALF_BITS);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_do_not_repeat_the_edge() {
        let around: Vec<usize> = (-4..9).map(|x| mirror(x, 5)).collect();
        assert_eq!(around, [4, 3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1, 0]);
        assert_eq!((mirror(-4, 2), mirror(3, 1)), (0, 0));
    }

    #[test]
    fn weights_sum_to_one() {
        for sigma in [0.3, 0.8, 2.0] {
            let taps = taps(sigma);
            let sum = i32::from(taps[0]) + 2 * taps[1..].iter().map(|&w| i32::from(w)).sum::<i32>();
            assert_eq!(sum, 1 << WEIGHT_BITS, "{sigma}");
        }
        assert_eq!(taps(0.1)[0], i16::MAX);
    }
}
