//! Converts the samples of a row of MCUs to pixels.
//!
//! No component is ever stored completely: each has one row of MCUs, and above it the last row of
//! samples of the previous one, which interpolation needs.

use crate::color::RgbLine;
use crate::frame::Frame;
use crate::idct::{Tile, WIDE};
use crate::isa::Isa;
use crate::sampling::Sampling;
use crate::upsample::{Sums, blend_rows, repeat};

/// The samples of a component in a row of MCUs.
#[derive(Debug)]
pub(crate) struct Plane {
    samples: Vec<u8>,
    /// Number of samples per row, a multiple of [`WIDE`].
    stride: usize,
}

impl Plane {
    fn new(width: usize, blocks_down: usize) -> Self {
        let stride = width.next_multiple_of(WIDE);
        Self { samples: vec![0; stride * (8 * blocks_down + 1)], stride }
    }

    /// Stores a tile. `column` and `row` are in tiles.
    #[inline(always)]
    pub(crate) fn put(&mut self, tile: &Tile, column: usize, row: usize) {
        let rows = self.samples.chunks_exact_mut(self.stride).skip(1 + 8 * row);
        for (row, line) in rows.zip(&tile.0) {
            if let Some(to) = row[WIDE * column..].first_chunk_mut() {
                *to = *line;
            }
        }
    }

    /// Returns a row of samples; row 0 is the last one of the previous row of MCUs.
    #[inline(always)]
    fn row(&self, row: usize) -> &[u8] {
        &self.samples[row * self.stride..][..self.stride]
    }

    /// Keeps the last row for the next row of MCUs.
    #[inline(always)]
    fn turn(&mut self) {
        let last = self.samples.len() - self.stride;
        self.samples.copy_within(last.., 0);
    }
}

/// The samples of all components in a row of MCUs, and the buffers for their conversion.
#[derive(Debug)]
pub(crate) struct Rows {
    pub(crate) planes: Vec<Plane>,
    width: usize,
    height: usize,
    sampling: Sampling,
    sums: Sums,
    /// Cb and Cr at full resolution.
    colors: [Vec<u8>; 2],
    pixels: Vec<u8>,
}

impl Rows {
    pub(crate) fn new(frame: &Frame, sampling: Sampling) -> Self {
        let (across, down) = (sampling.across(), sampling.down());
        let mcus = frame.width.div_ceil(8 * across);
        // Blocks are transformed four at a time, even those beyond the edge.
        let width = (8 * mcus).next_multiple_of(WIDE);
        let plane = |component| match component {
            0 => Plane::new(across * width, down),
            _ => Plane::new(width, 1),
        };
        Self {
            planes: (0..frame.components.len()).map(plane).collect(),
            width: frame.width,
            height: frame.height,
            sampling,
            sums: Sums::new(frame.width.div_ceil(across)),
            colors: [vec![0; across * width], vec![0; across * width]],
            pixels: vec![0; 3 * across * width],
        }
    }

    /// Appends the pixels that are complete with this row of MCUs.
    #[inline(always)]
    pub(crate) fn write(&mut self, isa: impl Isa, mcu_row: usize, pixels: &mut Vec<u8>) {
        let down = self.sampling.down();
        let top = 8 * down * mcu_row;
        let end = top + 8 * down;
        let (start, end) = match down {
            1 => (top, end.min(self.height)),
            // The last row needs the samples below it, so it is written with the next row of MCUs.
            _ if end >= self.height => (top.saturating_sub(1), self.height),
            _ => (top.saturating_sub(1), end - 1),
        };
        for y in start..end {
            let row = y + 1 - top;
            match self.sampling {
                Sampling::Gray => pixels.extend_from_slice(&self.planes[0].row(row)[..self.width]),
                _ => {
                    self.upsample(y, mcu_row);
                    self.convert(isa, row, pixels);
                }
            }
        }
        if down > 1 {
            self.planes.iter_mut().for_each(Plane::turn);
        }
    }

    /// Upsamples the color of row `y` of the image to full resolution.
    #[inline(always)]
    fn upsample(&mut self, y: usize, mcu_row: usize) {
        let count = self.width.div_ceil(self.sampling.across());
        // Rows of only two samples are not interpolated horizontally.
        let narrow = count <= 2;
        let (near, far) = self.color_rows(y, mcu_row);
        for (plane, out) in self.planes[1..].iter().zip(&mut self.colors) {
            let (near, far) = (plane.row(near), plane.row(far));
            match self.sampling {
                Sampling::Gray | Sampling::Full => {}
                Sampling::HalfWidth | Sampling::Quarter if narrow => repeat(near, out),
                Sampling::HalfWidth => {
                    self.sums.set(&near[..count]);
                    self.sums.spread::<2>(out);
                }
                Sampling::HalfHeight => blend_rows(near, far, y % 2 == 1, out),
                Sampling::Quarter => {
                    self.sums.blend(&near[..count], &far[..count]);
                    self.sums.spread::<4>(out);
                }
            }
        }
    }

    /// Returns the rows of the planes from which row `y` of the image takes its color: the nearer
    /// one, and the farther one above or below it. Beyond the edge, the last row is repeated.
    #[inline(always)]
    fn color_rows(&self, y: usize, mcu_row: usize) -> (usize, usize) {
        let down = self.sampling.down();
        let near = y / down;
        let far = match (down, y % 2) {
            (1, _) => near,
            (_, 0) => near.saturating_sub(1),
            _ => (near + 1).min(self.height.div_ceil(2) - 1),
        };
        // Row 0 of the planes is the last one of the previous row of MCUs.
        (near + 1 - 8 * mcu_row, far + 1 - 8 * mcu_row)
    }

    /// Appends the pixels of a row.
    #[inline(always)]
    fn convert(&mut self, isa: impl Isa, row: usize, pixels: &mut Vec<u8>) {
        let [y, cb, cr] = self.planes.as_slice() else { return };
        let [cb, cr] = match self.sampling {
            Sampling::Full => [cb.row(row), cr.row(row)],
            _ => [&self.colors[0][..], &self.colors[1]],
        };
        let lines = self.pixels.as_chunks_mut::<{ size_of::<RgbLine>() }>().0;
        let ys = y.row(row).as_chunks::<WIDE>().0;
        let (cbs, crs) = (cb.as_chunks::<WIDE>().0, cr.as_chunks::<WIDE>().0);
        for (((line, y), cb), cr) in lines.iter_mut().zip(ys).zip(cbs).zip(crs) {
            *line = isa.to_rgb(y, cb, cr);
        }
        pixels.extend_from_slice(&self.pixels[..3 * self.width]);
    }
}
