//! Pillow's Gaussian blur: three extended box filters along each axis.
//!
//! # Source
//! Pillow's `GaussianBlur` (Gwosdek et al., "Theoretical foundations of Gaussian convolution by
//! extended box filtering", equations 7, 11 and 14). As there, each of the six passes rounds to
//! whole levels.

use super::{Block, REACH, SCRATCH, Scratch, WIDE, block_at, long_box, narrow, widen};
use crate::transform::planes::Planes;
use crate::transform::simd::{dispatch, mul_high};

/// Box filters along each axis.
const PASSES: usize = 3;
/// Fractional bits of a weight.
const WEIGHT_BITS: u32 = 15;
/// Bits that a sum of up to three values has added before it is multiplied: 3 * 128 * 2^6 < 2^15.
const SUM_BITS: u32 = 6;
/// Fractional bits of a product, of which 16 are dropped.
const PRODUCT_BITS: u32 = SUM_BITS + WEIGHT_BITS - 16;

/// A box of 2 `radius` + 1 pixels and a share of one more pixel at both ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct ExtendedBox {
    pub(super) radius: usize,
    /// Weight of each whole pixel, of 1.
    pub(super) whole: f64,
    /// Weight of each of the two end pixels.
    pub(super) end: f64,
}

impl ExtendedBox {
    /// The box whose [`PASSES`]-fold repetition has the standard deviation `sigma`.
    fn new(sigma: f64) -> Self {
        let variance = sigma * sigma / PASSES as f64;
        let length = (12.0 * variance + 1.0).sqrt();
        let radius = ((length - 1.0) / 2.0).floor();
        let next = (radius + 1.0) * (radius + 1.0);
        let fraction = (2.0 * radius + 1.0) * (radius * (radius + 1.0) - 3.0 * variance)
            / (6.0 * (variance - next));
        let whole = 1.0 / (2.0 * (radius + fraction) + 1.0);
        let end = (1.0 - (2.0 * radius + 1.0) * whole) / 2.0;
        Self { radius: radius as usize, whole, end }
    }

    /// Weights (whole, end) with [`WEIGHT_BITS`] fractional bits.
    fn weights(&self) -> (i16, i16) {
        let fixed = |weight: f64| (weight * f64::from(1_u32 << WEIGHT_BITS)).round();
        (fixed(self.whole) as i16, fixed(self.end) as i16)
    }
}

/// Pillow's Gaussian blur with standard deviation `sigma` in pixels, in place.
pub fn pillow(planes: &mut Planes, sigma: f64) {
    let kernel = ExtendedBox::new(sigma);
    let (width, height) = (planes.width(), planes.height());
    if width == 0 || height == 0 {
        return;
    }
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.reserve(width, height);
        for c in 0..planes.channels() {
            let plane = planes.channel_mut(c);
            match kernel.radius {
                0 => dispatch(
                    #[inline(always)]
                    || blur::<0>(plane, width, kernel.weights(), scratch),
                ),
                1 => dispatch(
                    #[inline(always)]
                    || blur::<1>(plane, width, kernel.weights(), scratch),
                ),
                _ => long_box::blur(plane, width, &kernel),
            }
        }
    });
}

/// All passes over one plane, with boxes of 1 or 3 pixels: those that a sigma of up to 2.4 needs.
#[inline(always)]
fn blur<const RADIUS: usize>(
    plane: &mut [u8],
    width: usize,
    weights: (i16, i16),
    scratch: &mut Scratch,
) {
    let Scratch { lines: [line, other], planes: [middle, spare] } = scratch;
    let blocks = width.div_ceil(WIDE);
    for (row, out) in plane.chunks_exact(width).zip(middle.chunks_exact_mut(blocks)) {
        widen(row, line);
        repeat_edges(line, width);
        line_pass::<RADIUS>(line, weights, other[REACH..].as_chunks_mut().0);
        repeat_edges(other, width);
        line_pass::<RADIUS>(other, weights, line[REACH..].as_chunks_mut().0);
        repeat_edges(line, width);
        line_pass::<RADIUS>(line, weights, out);
    }
    let height = plane.len() / width;
    let (middle, spare) = (&mut middle[..blocks * height], &mut spare[..blocks * height]);
    column_pass::<RADIUS>(middle, blocks, weights, spare);
    column_pass::<RADIUS>(spare, blocks, weights, middle);
    column_pass::<RADIUS>(middle, blocks, weights, spare);
    for (row, out) in spare.chunks_exact(blocks).zip(plane.chunks_exact_mut(width)) {
        narrow(row, out);
    }
}

/// Writes the first and the last value of a line into the places beside it.
#[inline(always)]
fn repeat_edges(line: &mut [i16], width: usize) {
    let (first, last) = (line[REACH], line[REACH + width - 1]);
    line[..REACH].fill(first);
    line[REACH + width..REACH + width + REACH].fill(last);
}

#[inline(always)]
fn line_pass<const RADIUS: usize>(line: &[i16], weights: (i16, i16), out: &mut [Block]) {
    for (number, out) in out.iter_mut().enumerate() {
        let start = REACH - 2 + number * WIDE;
        let rows = [
            block_at(line, start),
            block_at(line, start + 1),
            block_at(line, start + 2),
            block_at(line, start + 3),
            block_at(line, start + 4),
        ];
        *out = weigh::<RADIUS>(rows, weights);
    }
}

/// Along the columns; rows beyond an edge are the edge's.
#[inline(always)]
fn column_pass<const RADIUS: usize>(
    from: &[Block],
    blocks: usize,
    weights: (i16, i16),
    to: &mut [Block],
) {
    let last = from.len() / blocks - 1;
    for (y, out) in to.chunks_exact_mut(blocks).enumerate() {
        let rows = [0, 1, 2, 3, 4].map(|i| {
            let row = (y + i).saturating_sub(2).min(last);
            &from[row * blocks..(row + 1) * blocks]
        });
        let [a, b, c, d, e] = rows;
        for (((((out, a), b), c), d), e) in out.iter_mut().zip(a).zip(b).zip(c).zip(d).zip(e) {
            *out = weigh::<RADIUS>([a, b, c, d, e], weights);
        }
    }
}

/// A box of 1 (`RADIUS` 0) or 3 (`RADIUS` 1) values around the middle one of `rows` and the ends
/// beside it. The rows are neighbours in either direction: a shifted line or lines of an image.
#[inline(always)]
fn weigh<const RADIUS: usize>(rows: [&Block; 5], (whole, end): (i16, i16)) -> Block {
    // Half a level, and half a bit for each of the two products that are cut off below.
    const ROUNDING: i16 = (1 << (PRODUCT_BITS - 1)) + 1;
    let mut out = [0; WIDE];
    for i in 0..WIDE {
        let [far_before, before, middle, after, far_after] =
            [rows[0][i], rows[1][i], rows[2][i], rows[3][i], rows[4][i]];
        let beside = before.wrapping_add(after);
        let (inside, ends) = match RADIUS {
            0 => (middle, beside),
            _ => (middle.wrapping_add(beside), far_before.wrapping_add(far_after)),
        };
        let sum = mul_high(inside << SUM_BITS, whole)
            .wrapping_add(mul_high(ends << SUM_BITS, end))
            .wrapping_add(ROUNDING);
        out[i] = sum >> PRODUCT_BITS;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_pillows() {
        // sigma 2: length sqrt 17, radius 1, fraction 3/8.
        let kernel = ExtendedBox::new(2.0);
        assert_eq!(kernel.radius, 1);
        assert!((kernel.whole - 1.0 / 3.75).abs() < 1e-12, "{kernel:?}");
        assert!((kernel.end - 0.1).abs() < 1e-12, "{kernel:?}");
        assert_eq!(ExtendedBox::new(0.1).radius, 0);
        assert_eq!(ExtendedBox::new(5.0).radius, 4);
    }

    #[test]
    fn short_and_long_boxes_agree() {
        for (width, height) in [(1, 1), (2, 5), (6, 3), (33, 40), (70, 9)] {
            let plane: Vec<u8> = (0..width * height).map(|i| (i * i * 7 % 251) as u8).collect();
            for sigma in [0.3, 1.0, 1.5, 2.0] {
                let kernel = ExtendedBox::new(sigma);
                let (mut short, mut long) = (plane.clone(), plane.clone());
                let mut scratch = Scratch::default();
                scratch.reserve(width, height);
                match kernel.radius {
                    0 => blur::<0>(&mut short, width, kernel.weights(), &mut scratch),
                    _ => blur::<1>(&mut short, width, kernel.weights(), &mut scratch),
                }
                long_box::blur(&mut long, width, &kernel);
                let worst = short.iter().zip(&long).map(|(a, b)| a.abs_diff(*b)).max();
                assert!(worst <= Some(2), "sigma {sigma}, {width}x{height}: {worst:?}");
            }
        }
    }
}
