//! Pillow's Gaussian blur: three extended box filters along each axis.
//!
//! # Source
//! Pillow's `GaussianBlur` (Gwosdek et al., "Theoretical foundations of Gaussian convolution by
//! extended box filtering", equations 7, 11, and 14). As in Pillow, each of the six passes rounds
//! to whole levels.

use super::extended_box::{ExtendedBox, WEIGHT_BITS};
use super::{BAND, Block, OUTSIDE, REACH, SCRATCH, Scratch, WIDE};
use super::{block_at, line_length, long_box, narrow, widen};
use crate::planes::Planes;
use simd::dispatch;

use crate::lanes::mul_high;

/// Number of bits by which a sum of up to three values is shifted up before it is multiplied. The
/// result fits 16 bits: `3 * 128 * 2^6 < 2^15`.
const SUM_BITS: u32 = 6;
/// Number of fractional bits of a product after its lower 16 bits are dropped.
const PRODUCT_BITS: u32 = SUM_BITS + WEIGHT_BITS - 16;

/// Applies Pillow's Gaussian blur with standard deviation `sigma` in pixels, in place.
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

/// Runs all passes over one plane, with boxes of 1 or 3 pixels, which a sigma of up to 2.4 needs.
///
/// Rows go through the passes in groups, so that the results of a pass have left the processor's
/// store queue when the next pass reads them at other offsets. Columns go through them [`WIDE`] at
/// a time, which fit the fastest cache.
#[inline(always)]
fn blur<const RADIUS: usize>(
    plane: &mut [u8],
    width: usize,
    weights: (i16, i16),
    scratch: &mut Scratch,
) {
    let Scratch { lines: [lines, others], planes: [columns, spare] } = scratch;
    let (blocks, height) = (width.div_ceil(WIDE), plane.len() / width);
    let (stride, column_length) = (line_length(blocks), height + 2 * OUTSIDE);
    for (number, band) in plane.chunks(BAND * width).enumerate() {
        for (row, line) in band.chunks_exact(width).zip(lines.chunks_exact_mut(stride)) {
            widen(row, line);
            repeat_edges(line, width);
        }
        let rows = band.len() / width;
        line_passes::<RADIUS>((lines, others), rows, width, weights);
        line_passes::<RADIUS>((others, lines), rows, width, weights);
        for (y, line) in lines.chunks_exact(stride).take(rows).enumerate() {
            let y = number * BAND + y + OUTSIDE;
            line_pass::<RADIUS>(line, weights, columns[y..].iter_mut().step_by(column_length));
        }
    }
    let (one, other) = spare.split_at_mut(column_length);
    for (number, column) in columns.chunks_exact_mut(column_length).take(blocks).enumerate() {
        column_pass::<RADIUS>(column, weights, one);
        column_pass::<RADIUS>(one, weights, other);
        repeat_ends(other);
        let rows = plane.chunks_exact_mut(width).map(|row| &mut row[number * WIDE..]);
        for (row, near) in rows.zip(other.windows(5)) {
            narrow(&weigh::<RADIUS>(each(near), weights), row);
        }
    }
}

/// Runs one pass over `rows` lines of the first buffer into the second one.
#[inline(always)]
fn line_passes<const RADIUS: usize>(
    (from, to): (&[i16], &mut [i16]),
    rows: usize,
    width: usize,
    weights: (i16, i16),
) {
    let stride = line_length(width.div_ceil(WIDE));
    for (from, to) in from.chunks_exact(stride).zip(to.chunks_exact_mut(stride)).take(rows) {
        line_pass::<RADIUS>(from, weights, to[REACH..].as_chunks_mut().0.iter_mut());
        repeat_edges(to, width);
    }
}

/// Writes the first and the last value of a line into the elements before and after it.
#[inline(always)]
fn repeat_edges(line: &mut [i16], width: usize) {
    let (first, last) = (line[REACH], line[REACH + width - 1]);
    for i in 0..REACH {
        line[i] = first;
        line[REACH + width + i] = last;
    }
}

#[inline(always)]
fn line_pass<'a, const RADIUS: usize>(
    line: &[i16],
    weights: (i16, i16),
    out: impl Iterator<Item = &'a mut Block>,
) {
    // The last elements of a line's buffer are not the beginning of a block.
    for (out, near) in out.zip(line[REACH - 2..].windows(WIDE + 4).step_by(WIDE)) {
        let shifted = [
            block_at(near, 0),
            block_at(near, 1),
            block_at(near, 2),
            block_at(near, 3),
            block_at(near, 4),
        ];
        *out = weigh::<RADIUS>(shifted, weights);
    }
}

/// Runs one pass along a column, after extending it beyond its ends.
#[inline(always)]
fn column_pass<const RADIUS: usize>(from: &mut [Block], weights: (i16, i16), to: &mut [Block]) {
    repeat_ends(from);
    for (out, near) in to[OUTSIDE..].iter_mut().zip(from.windows(5)) {
        *out = weigh::<RADIUS>(each(near), weights);
    }
}

#[inline(always)]
fn each(near: &[Block]) -> [&Block; 5] {
    [&near[0], &near[1], &near[2], &near[3], &near[4]]
}

/// Writes the first and the last row into the elements beyond them.
#[inline(always)]
fn repeat_ends(column: &mut [Block]) {
    let last = column.len() - 1 - OUTSIDE;
    for i in 0..OUTSIDE {
        column[i] = column[OUTSIDE];
        column[last + 1 + i] = column[last];
    }
}

/// Applies a box of 1 (`RADIUS` 0) or 3 (`RADIUS` 1) values around the middle one of `rows`, and
/// the partial pixels at its ends. The rows are neighbors in either direction: a line at several
/// offsets, or several lines of an image.
#[inline(always)]
fn weigh<const RADIUS: usize>(rows: [&Block; 5], (whole, end): (i16, i16)) -> Block {
    // Half a level, and half a bit for each of the two products, whose lower bits are cut off
    // below.
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
