//! Converts the samples of a whole image to pixels, with any sampling and any colors.

use crate::color::{RgbLine, ink};
use crate::frame::{Component, Frame};
use crate::header::{Colors, Header};
use crate::idct::{Tile, WIDE};
use crate::isa::Isa;
use crate::upsample::{Sums, blend_rows, repeat};

/// All samples of a component.
pub(crate) struct Samples {
    values: Vec<u8>,
    /// Number of samples per row, a multiple of [`WIDE`].
    stride: usize,
    /// Number of samples per row that the image uses.
    width: usize,
    /// Number of rows that the image uses.
    height: usize,
}

impl Samples {
    /// Allocates memory for `down` rows of `across` tiles, of which the image uses `width` x
    /// `height` samples.
    pub(crate) fn new(across: usize, down: usize, [width, height]: [usize; 2]) -> Self {
        let stride = WIDE * across;
        Self { values: vec![0; stride * 8 * down], stride, width, height }
    }

    /// Stores a tile. `column` and `row` are in tiles.
    #[inline(always)]
    pub(crate) fn put(&mut self, tile: &Tile, column: usize, row: usize) {
        let rows = self.values.chunks_exact_mut(self.stride).skip(8 * row);
        for (row, line) in rows.zip(&tile.0) {
            if let Some(to) = row[WIDE * column..].first_chunk_mut() {
                *to = *line;
            }
        }
    }

    #[inline(always)]
    fn row(&self, row: usize) -> &[u8] {
        &self.values[row * self.stride..][..self.stride]
    }
}

/// How the samples of a component are upsampled to full resolution. The choice is the same as in
/// libjpeg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The samples already have full resolution.
    Full,
    /// Interpolated horizontally (`Wide`), vertically (`Tall`), or in both directions (`Both`).
    Wide,
    Tall,
    Both,
    /// Repeated horizontally and vertically.
    Repeat {
        across: usize,
        down: usize,
    },
}

impl Way {
    fn of(frame: &Frame, component: &Component) -> Self {
        let [width, _] = frame.samples(component);
        let (across, down) = (frame.across() / component.across, frame.down() / component.down);
        // Rows of only two samples are not interpolated horizontally.
        match (across, down, width > 2) {
            (1, 1, _) => Self::Full,
            (1, 2, _) => Self::Tall,
            (2, 1, true) => Self::Wide,
            (2, 2, true) => Self::Both,
            _ => Self::Repeat { across, down },
        }
    }
}

/// The samples of a component, and one row of them at full resolution.
struct Plane {
    samples: Samples,
    way: Way,
    sums: Sums,
    row: Vec<u8>,
}

/// All samples of an image, and the buffers for their conversion.
pub(crate) struct Output {
    planes: Vec<Plane>,
    width: usize,
    colors: Colors,
    /// A row of RGB.
    rgb: Vec<u8>,
}

impl Output {
    /// Creates the output for the `samples` of each component.
    pub(crate) fn new(header: &Header<'_>, samples: Vec<Samples>) -> Self {
        let frame = &header.frame;
        // The widest component has at least as many samples as are written.
        let width = samples
            .iter()
            .zip(&frame.components)
            .map(|(samples, component)| samples.stride * frame.across() / component.across);
        let width = width.max().unwrap_or(0).next_multiple_of(WIDE);
        let plane = |(samples, component): (Samples, &Component)| Plane {
            way: Way::of(frame, component),
            sums: Sums::new(samples.width),
            row: vec![0; width],
            samples,
        };
        Self {
            planes: samples.into_iter().zip(&frame.components).map(plane).collect(),
            width: frame.width,
            colors: header.colors,
            rgb: vec![0; 3 * width],
        }
    }

    /// Appends the pixels of row `y` of the image.
    #[inline(always)]
    pub(crate) fn write(&mut self, isa: impl Isa, y: usize, pixels: &mut Vec<u8>) {
        self.planes.iter_mut().for_each(|plane| plane.upsample(y));
        let rows: Vec<&[u8]> = self.planes.iter().map(|plane| &plane.row[..]).collect();
        let width = self.width;
        match (self.colors, rows.as_slice()) {
            (Colors::YCbCr, &[luma, cb, cr]) => {
                convert(isa, [luma, cb, cr], &mut self.rgb);
                pixels.extend_from_slice(&self.rgb[..3 * width]);
            }
            (Colors::Ycck, &[luma, cb, cr, black]) => {
                convert(isa, [luma, cb, cr], &mut self.rgb);
                let inks = self.rgb.as_chunks::<3>().0.iter().zip(black).take(width);
                pixels
                    .extend(inks.flat_map(|(rgb, &black)| rgb.map(|ink_| ink(255 - ink_, black))));
            }
            (Colors::Cmyk, &[cyan, magenta, yellow, black]) => {
                let inks = cyan.iter().zip(magenta).zip(yellow).zip(black).take(width);
                pixels.extend(inks.flat_map(|(((&c, &m), &y), &k)| [c, m, y].map(|v| ink(v, k))));
            }
            (_, &[only]) => pixels.extend_from_slice(&only[..width]),
            (_, rows) => {
                pixels.extend((0..width).flat_map(|x| rows.iter().map(move |row| row[x])));
            }
        }
    }
}

/// Converts a row of luminance and color to RGB.
#[inline(always)]
fn convert(isa: impl Isa, [luma, cb, cr]: [&[u8]; 3], rgb: &mut [u8]) {
    let lines = rgb.as_chunks_mut::<{ size_of::<RgbLine>() }>().0;
    let [luma, cb, cr] = [luma, cb, cr].map(|row| row.as_chunks::<WIDE>().0);
    for (((line, luma), cb), cr) in lines.iter_mut().zip(luma).zip(cb).zip(cr) {
        *line = isa.to_rgb(luma, cb, cr);
    }
}

impl Plane {
    /// Sets `row` to the samples of row `y` of the image, at full resolution.
    #[inline(always)]
    fn upsample(&mut self, y: usize) {
        let Self { samples, way, sums, row } = self;
        let count = samples.width;
        match *way {
            Way::Full => row[..samples.stride].copy_from_slice(samples.row(y)),
            Way::Wide => {
                sums.set(&samples.row(y)[..count]);
                sums.spread::<2>(row);
            }
            Way::Tall => {
                let [near, far] = neighbors(y, samples.height);
                blend_rows(samples.row(near), samples.row(far), y % 2 == 1, row);
            }
            Way::Both => {
                let [near, far] = neighbors(y, samples.height);
                sums.blend(&samples.row(near)[..count], &samples.row(far)[..count]);
                sums.spread::<4>(row);
            }
            Way::Repeat { across: 2, down } => repeat(samples.row(y / down), row),
            Way::Repeat { across, down } => {
                for (to, &sample) in row.chunks_exact_mut(across).zip(samples.row(y / down)) {
                    to.fill(sample);
                }
            }
        }
    }
}

/// Returns the nearer and the farther of the two rows, at half resolution, between which row `y` is
/// interpolated. Beyond the edge, the last row is repeated.
#[inline(always)]
fn neighbors(y: usize, rows: usize) -> [usize; 2] {
    let near = y / 2;
    let far = if y % 2 == 1 { (near + 1).min(rows - 1) } else { near.saturating_sub(1) };
    [near, far]
}
