//! The two Gaussian blurs of the published recipes.
//!
//! [`pillow`] approximates the Gaussian by three extended box filters along each axis, with the
//! edge pixels repeated. [`kernel9`] is a plain 9-tap kernel with the edges mirrored. Both work in
//! 16-bit lanes on bytes minus 128, so that sums of neighbors fit.

mod boxes;
mod extended_box;
mod gaussian;
mod long_box;

use std::cell::RefCell;

pub use boxes::pillow;
pub use gaussian::kernel9;

use super::lanes::put;

/// Number of values that are processed together.
const WIDE: usize = 32;
/// Number of extra values on each side of a line in memory: the taps on each side of the middle of
/// the 9-tap kernel.
const REACH: usize = 4;
/// Number of rows that go through a pass before the next pass begins.
const BAND: usize = 8;
/// Number of extra rows beyond each end of a column: the reach of a pass.
const OUTSIDE: usize = 2;

type Block = [i16; WIDE];

/// Buffers that a thread reuses from blur to blur.
#[derive(Default)]
struct Scratch {
    /// Lines with [`REACH`] extra values before and after them.
    lines: [Vec<i16>; 2],
    /// Blocks of two planes.
    planes: [Vec<Block>; 2],
}

impl Scratch {
    fn reserve(&mut self, width: usize, height: usize) {
        let blocks = width.div_ceil(WIDE);
        let rows = height + 2 * OUTSIDE;
        for lines in &mut self.lines {
            lines.resize(BAND * line_length(blocks), 0);
        }
        let [plane, spare] = &mut self.planes;
        plane.resize(blocks * rows, [0; WIDE]);
        spare.resize(2 * rows, [0; WIDE]);
    }
}

/// Returns the number of values of a line in memory.
fn line_length(blocks: usize) -> usize {
    blocks * WIDE + 2 * REACH
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Returns the [`WIDE`] values from `start` on.
#[inline(always)]
fn block_at(line: &[i16], start: usize) -> &Block {
    const NONE: &Block = &[0; WIDE];
    line[start..].first_chunk().unwrap_or(NONE)
}

/// Converts bytes to values around zero, stored from index [`REACH`] of the line on.
#[inline(always)]
fn widen(from: &[u8], line: &mut [i16]) {
    for (out, &byte) in line[REACH..].iter_mut().zip(from) {
        *out = i16::from(byte) - 128;
    }
}

/// Converts values around zero to bytes, as many as fit in `to`.
#[inline(always)]
fn narrow(block: &Block, to: &mut [u8]) {
    let mut bytes = [0; WIDE];
    for i in 0..WIDE {
        bytes[i] = (block[i] as u8) ^ 0x80;
    }
    put(bytes, to);
}

#[cfg(test)]
#[cfg(feature = "decode")]
mod tests {
    use image::{Rgb, RgbImage};
    use proptest::prelude::*;

    use super::*;
    use crate::Planes;

    proptest! {
        #[test]
        fn a_flat_image_of_any_size_stays(
            (width, height) in (1_u32..70, 1_u32..40), value: u8, sigma in 0.1_f64..6.0,
        ) {
            let image = RgbImage::from_pixel(width, height, Rgb([value, 255, 0]));
            for blur in [pillow, kernel9] {
                let mut planes = Planes::from_rgb(&image);
                blur(&mut planes, sigma);
                prop_assert_eq!(&planes.to_rgb(), &image);
            }
        }
    }

    #[test]
    fn a_point_spreads_by_sigma() {
        let image =
            RgbImage::from_fn(41, 41, |x, y| Rgb([if (x, y) == (20, 20) { 255 } else { 0 }; 3]));
        for (blur, sigma) in [(pillow as fn(&mut Planes, f64), 1.2), (kernel9, 1.2), (pillow, 1.9)]
        {
            let mut planes = Planes::from_rgb(&image);
            blur(&mut planes, sigma);
            let row = &planes.channel(0)[20 * 41..21 * 41];
            let total: f64 = row.iter().map(|&v| f64::from(v)).sum();
            let spread: f64 = row
                .iter()
                .enumerate()
                .map(|(x, &v)| (x as f64 - 20.0).powi(2) * f64::from(v))
                .sum();
            assert!(((spread / total).sqrt() - sigma).abs() < 0.15, "{sigma}: {row:?}");
        }
    }
}
