//! Reads BMP files, including those for which the `image` crate yields different pixels than
//! Pillow: run-length encoding, and 16-bit colors.

use std::io::Cursor;

use image::codecs::bmp::BmpDecoder;
use image::error::DecodingError;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, RgbImage};

use crate::generic::read_dynamic;
use crate::parts::{Failure, check_size};

/// Position of the offset of the pixels: the last four of the 14 bytes of the file header.
const PLACE: usize = 10;
/// Position of the image header, which begins with its own size.
const HEAD: usize = 14;
const BITS: usize = 28;
const COMPRESSION: usize = 30;
/// Position of the color masks: after the shortest image header that allows them, and at the same
/// place in longer ones.
const MASKS: usize = 54;

/// Reads the image, without applying an orientation.
///
/// # Errors
/// Returns a [`Failure`] of any kind.
pub(super) fn read(bytes: &[u8]) -> Result<DynamicImage, Failure> {
    let number = |place: usize| Some(u32::from_le_bytes(*bytes.get(place..)?.first_chunk()?));
    // The oldest header, of 12 bytes, has neither of these fields.
    let long = number(HEAD).is_some_and(|size| size >= 40);
    let bits = number(BITS).map_or(0, |bits| bits & 0xFFFF);
    match (bits, number(COMPRESSION).unwrap_or(0)) {
        (8, 1) if long => read_runs(bytes, Runs::Bytes),
        (4, 2) if long => read_runs(bytes, Runs::Halves),
        (16, kind @ (0 | 3)) if long => {
            let mut image = read_dynamic(bytes, ImageFormat::Bmp)?;
            let mask = |at: usize| number(MASKS + 4 * at).map_or(8, u32::count_ones);
            let lengths = if kind == 3 { [0, 1, 2].map(mask) } else { [5; 3] };
            round_down(&mut image, lengths);
            Ok(image)
        }
        _ => read_dynamic(bytes, ImageFormat::Bmp),
    }
}

/// Undoes a rounding difference: the crate rounds values of fewer than 8 bits to the nearest 8-bit
/// value, whereas Pillow rounds them down.
fn round_down(image: &mut DynamicImage, lengths: [u32; 3]) {
    let tables = lengths.map(|bits| {
        let most = (1_u32 << bits.min(8)) - 1;
        // Each 8-bit value that the crate yields stands for one original value.
        let table: [u8; 256] = std::array::from_fn(|rounded| {
            let value = (rounded as u32 * most + 127) / 255;
            (value * 255 / most.max(1)) as u8
        });
        table
    });
    let (values, channels) = match image {
        DynamicImage::ImageRgb8(image) => (image.as_flat_samples_mut().samples, 3),
        DynamicImage::ImageRgba8(image) => (image.as_flat_samples_mut().samples, 4),
        _ => return,
    };
    for pixel in values.chunks_exact_mut(channels) {
        for (value, table) in pixel.iter_mut().zip(&tables) {
            *value = table[usize::from(*value)];
        }
    }
}

/// How palette indices are stored in the stream.
#[derive(Clone, Copy, PartialEq)]
enum Runs {
    /// RLE8: one per byte.
    Bytes,
    /// RLE4: two per byte.
    Halves,
}

/// Reads a run-length encoded image. Pixels that no run sets have the first color of the palette,
/// as in Pillow; the crate makes them black.
fn read_runs(bytes: &[u8], kind: Runs) -> Result<DynamicImage, Failure> {
    let decoder = BmpDecoder::new(Cursor::new(bytes))?;
    let (width, height) = decoder.dimensions();
    check_size(width, height, decoder.total_bytes())?;
    let palette =
        decoder.get_palette().ok_or_else(|| broken("run-length encoding without a palette"))?;
    let place = bytes.get(PLACE..).and_then(<[u8]>::first_chunk).ok_or(Failure::Truncated)?;
    let data = bytes.get(u32::from_le_bytes(*place) as usize..).ok_or(Failure::Truncated)?;
    let indices = Indices::new(width as usize, height as usize).filled(data, kind)?;
    let mut pixels = Vec::with_capacity(indices.len() * 3);
    // Rows are stored from bottom to top.
    for row in indices.chunks_exact((width as usize).max(1)).rev() {
        for &index in row {
            pixels.extend(palette.get(usize::from(index)).copied().unwrap_or_default());
        }
    }
    let image = RgbImage::from_raw(width, height, pixels);
    Ok(image.ok_or_else(|| broken("the wrong number of pixels"))?.into())
}

/// Palette indices, row by row, and the position of the next one.
struct Indices {
    values: Vec<u8>,
    width: usize,
    height: usize,
    x: usize,
    y: usize,
}

impl Indices {
    fn new(width: usize, height: usize) -> Self {
        Self { values: vec![0; width * height], width, height, x: 0, y: 0 }
    }

    fn is_full(&self) -> bool {
        self.y >= self.height || self.y + 1 == self.height && self.x >= self.width
    }

    fn filled(mut self, data: &[u8], kind: Runs) -> Result<Vec<u8>, Failure> {
        let mut rest = data.iter().copied();
        let mut next = || rest.next().ok_or(Failure::Truncated);
        while !self.is_full() {
            match (next()?, next()?) {
                (0, 0) => (self.x, self.y) = (0, self.y + 1),
                (0, 1) => return Err(broken("the runs end before the last pixel")),
                (0, 2) => self.skip(next()?.into(), next()?.into())?,
                (0, count) => {
                    let count = usize::from(count);
                    let colors: Vec<u8> = match kind {
                        Runs::Bytes => (0..count).map(|_| next()).collect::<Result<_, _>>()?,
                        Runs::Halves => {
                            let pairs = (0..count.div_ceil(2)).map(|_| next().map(halves));
                            pairs.collect::<Result<Vec<_>, _>>()?.concat()
                        }
                    };
                    if self.x + count > self.width {
                        return Err(broken("colors beyond the end of a row"));
                    }
                    self.put(colors.into_iter().take(count));
                    // Runs are padded to an even number of bytes.
                    let stored = if kind == Runs::Bytes { count } else { count.div_ceil(2) };
                    if !stored.is_multiple_of(2) && !self.is_full() {
                        next()?;
                    }
                }
                (count, color) => {
                    let colors = if kind == Runs::Bytes { [color; 2] } else { halves(color) };
                    // Some programs write a run that is too long at the end of a row.
                    let count = usize::from(count).min(self.width - self.x);
                    self.put(colors.into_iter().cycle().take(count));
                }
            }
        }
        Ok(self.values)
    }

    /// Sets the next pixels of the row, which must have room for them.
    fn put(&mut self, colors: impl Iterator<Item = u8>) {
        let start = self.y * self.width + self.x;
        for (value, color) in self.values[start..].iter_mut().zip(colors) {
            *value = color;
            self.x += 1;
        }
    }

    fn skip(&mut self, right: usize, up: usize) -> Result<(), Failure> {
        (self.x, self.y) = (self.x + right, self.y + up);
        if self.x > self.width || self.y >= self.height {
            return Err(broken("a skip beyond the end of a row or of the image"));
        }
        Ok(())
    }
}

/// Splits a byte into its two palette indices; the first one is in the upper half.
fn halves(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xF]
}

fn broken(reason: &'static str) -> Failure {
    ImageError::Decoding(DecodingError::new(ImageFormat::Bmp.into(), reason)).into()
}
