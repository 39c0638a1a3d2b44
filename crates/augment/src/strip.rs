//! Transposes some rows of an image: the result has one pixel column after the other, as 16-bit
//! samples.

use super::isa::{Isa, SQUARE, Samples, WIDE};
use crate::pixels::Pixels;

/// Number of rows in a strip.
pub(super) const ROWS: usize = WIDE;
/// Number of columns that are transposed at a time.
pub(super) const BLOCK: usize = SQUARE;

/// Returns the number of columns in a strip, including those that fill the last block.
pub(super) fn columns(width: usize) -> usize {
    width.next_multiple_of(BLOCK)
}

/// Transposes the rows `start..start + ROWS` of `image`: `strip[c * columns(width) + x]` contains
/// channel `c` of column `x`. Rows beyond the image have unspecified contents.
#[inline(always)]
pub(super) fn turn(isa: impl Isa, image: Pixels<'_>, start: usize, strip: &mut [Samples]) {
    let width = columns(image.width() as usize);
    for left in (0..width).step_by(BLOCK) {
        if image.channels() == 3 {
            let block = rgb_block(isa, image, left, start);
            for (c, lines) in block.into_iter().enumerate() {
                turn_block(isa, lines, &mut strip[c * width + left..]);
            }
        } else {
            for c in 0..image.channels() {
                let lines = channel_block(isa, image, c, left, start);
                turn_block(isa, lines, &mut strip[c * width + left..]);
            }
        }
    }
}

/// Returns the red, green, and blue bytes from (`left`, `top`) on. The block of a channel consists
/// of two squares, one below the other in the image: line `i` holds [`BLOCK`] pixels of row `i`,
/// followed by those of row `i + BLOCK`.
#[inline(always)]
fn rgb_block<I: Isa>(isa: I, image: Pixels<'_>, left: usize, top: usize) -> [[I::Bytes; BLOCK]; 3] {
    let last = image.height() as usize - 1;
    let mut block = [[isa.load([0; WIDE]); BLOCK]; 3];
    for i in 0..BLOCK {
        let one = &image.row((top + i).min(last))[3 * left..];
        let other = &image.row((top + i + BLOCK).min(last))[3 * left..];
        let channels = match (one.first_chunk(), other.first_chunk()) {
            (Some(one), Some(other)) => isa.split(one, other),
            _ => isa.split(&padded(one), &padded(other)),
        };
        for c in 0..3 {
            block[c][i] = channels[c];
        }
    }
    block
}

/// Pads the end of a row with zeros. This is a separate function, so that blocks inside the image
/// are copied without a call.
#[cold]
#[inline(never)]
fn padded<const N: usize>(row: &[u8]) -> [u8; N] {
    let mut pixels = [0; N];
    pixels[..row.len()].copy_from_slice(row);
    pixels
}

/// Like [`rgb_block`], but for one channel of an image with any number of channels.
#[inline(always)]
fn channel_block<I: Isa>(
    isa: I,
    image: Pixels<'_>,
    channel: usize,
    left: usize,
    top: usize,
) -> [I::Bytes; BLOCK] {
    let (last, channels) = (image.height() as usize - 1, image.channels());
    let mut block = [isa.load([0; WIDE]); BLOCK];
    for (i, out) in block.iter_mut().enumerate() {
        let mut line = [0; WIDE];
        for (half, line) in line.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
            let row = &image.row((top + i + half * BLOCK).min(last))[channels * left..];
            for (value, pixel) in line.iter_mut().zip(row.chunks_exact(channels)) {
                *value = pixel[channel];
            }
        }
        *out = isa.load(line);
    }
    block
}

#[inline(always)]
fn turn_block<I: Isa>(isa: I, lines: [I::Bytes; BLOCK], strip: &mut [Samples]) {
    let columns = isa.transpose(lines);
    for (column, &bytes) in strip.iter_mut().zip(&columns) {
        let [upper, lower] = isa.samples(bytes);
        if let [first, second] = column.0.as_chunks_mut().0 {
            (*first, *second) = (upper, lower);
        }
    }
}
