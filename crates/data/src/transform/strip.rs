//! Some rows of an image, turned: pixel column by pixel column, as 16-bit samples.

use super::isa::{Samples, WIDE};
use super::simd::transpose;
use crate::pixels::Pixels;

/// Rows of a strip.
pub(super) const ROWS: usize = WIDE;
/// Side of the squares of pixels that are turned at a time.
pub(super) const BLOCK: usize = 16;

/// The sample of a byte: less 128, with eight fractional bits.
#[inline(always)]
pub(super) fn sample(byte: u8) -> i16 {
    i16::from(byte ^ 0x80) << 8
}

/// Columns of a strip, those that fill the last block included.
pub(super) fn columns(width: usize) -> usize {
    width.next_multiple_of(BLOCK)
}

/// Turns the rows `start..start + ROWS` of `image`: `strip[c * columns(width) + x]` holds channel
/// `c` of column `x`. Rows beyond the image are left as they are.
#[inline(always)]
pub(super) fn turn(image: Pixels<'_>, start: usize, strip: &mut [Samples]) {
    let width = columns(image.width() as usize);
    for left in (0..width).step_by(BLOCK) {
        for half in 0..ROWS / BLOCK {
            let first = start + half * BLOCK;
            if image.channels() == 3 {
                turn_block(rgb_block(image, left, first), half, &mut strip[left..], width);
            } else {
                turn_any(image, left, first, half, &mut strip[left..], width);
            }
        }
    }
}

/// `[3, BLOCK rows, BLOCK columns]` of an RGB image from (`left`, `top`) on; 0 beyond it.
#[inline(always)]
fn rgb_block(image: Pixels<'_>, left: usize, top: usize) -> [[[u8; BLOCK]; BLOCK]; 3] {
    const BYTES: usize = 3 * BLOCK;
    let mut block = [[[0; BLOCK]; BLOCK]; 3];
    for i in 0..BLOCK.min((image.height() as usize).saturating_sub(top)) {
        let row = &image.row(top + i)[3 * left..];
        let pixels: [u8; BYTES] = match row.first_chunk() {
            Some(pixels) => *pixels,
            None => {
                let mut pixels = [0; BYTES];
                pixels[..row.len()].copy_from_slice(row);
                pixels
            }
        };
        for j in 0..BLOCK {
            block[0][i][j] = pixels[3 * j];
            block[1][i][j] = pixels[3 * j + 1];
            block[2][i][j] = pixels[3 * j + 2];
        }
    }
    block
}

#[inline(always)]
fn turn_block(
    block: [[[u8; BLOCK]; BLOCK]; 3],
    half: usize,
    strip: &mut [Samples],
    channel_stride: usize,
) {
    for (c, channel) in block.into_iter().enumerate() {
        let columns = &mut strip[c * channel_stride..][..BLOCK];
        for (column, values) in columns.iter_mut().zip(transpose(channel)) {
            let samples = &mut column.0[half * BLOCK..(half + 1) * BLOCK];
            for i in 0..BLOCK {
                samples[i] = sample(values[i]);
            }
        }
    }
}

/// As [`rgb_block`] and [`turn_block`], value by value, for any number of channels.
#[inline(always)]
fn turn_any(
    image: Pixels<'_>,
    left: usize,
    top: usize,
    half: usize,
    strip: &mut [Samples],
    channel_stride: usize,
) {
    let channels = image.channels();
    for i in 0..BLOCK.min((image.height() as usize).saturating_sub(top)) {
        let row = &image.row(top + i)[channels * left..];
        for (x, pixel) in row.chunks_exact(channels).take(BLOCK).enumerate() {
            for (c, &value) in pixel.iter().enumerate() {
                strip[c * channel_stride + x].0[half * BLOCK + i] = sample(value);
            }
        }
    }
}

/// `[BLOCK columns, ROWS]` to `[ROWS, BLOCK columns]`.
#[inline(always)]
pub(super) fn turn_back(columns: &[[u8; ROWS]; BLOCK]) -> [[u8; BLOCK]; ROWS] {
    let mut rows = [[0; BLOCK]; ROWS];
    for half in 0..ROWS / BLOCK {
        let mut square = [[0; BLOCK]; BLOCK];
        for x in 0..BLOCK {
            square[x].copy_from_slice(&columns[x][half * BLOCK..(half + 1) * BLOCK]);
        }
        rows[half * BLOCK..(half + 1) * BLOCK].copy_from_slice(&transpose(square));
    }
    rows
}
