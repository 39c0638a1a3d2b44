//! Reads label images, in which the value of each pixel is the number or the color of a class.
//!
//! [`crate::read`] converts palette indices to colors, and scales 1, 2, and 4 bits to 8. Both would
//! change class numbers, so this reader returns the values as they are stored.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use image::error::DecodingError;
use image::{ImageError, ImageFormat};
use png::{BitDepth, ColorType, Decoder, Limits, Transformations};

use crate::error::{Error, Result};
use crate::guess_format;
use crate::parts::{Failure, MAX_IMAGE_BYTES, check_size};
use crate::png::has_whole_palette;

/// The pixels of a label image, row by row from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelPixels {
    /// Gray values or palette indices, exactly as they are stored.
    Ids(Vec<u16>),
    /// Red, green, and blue.
    Colors(Vec<[u8; 3]>),
}

/// A decoded label image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelImage {
    /// Number of pixels per row.
    pub width: u32,
    /// Number of rows.
    pub height: u32,
    /// One entry per pixel.
    pub pixels: LabelPixels,
}

/// Decodes a label image: a PNG of gray values (up to 16 bits), palette indices, or 8-bit RGB.
///
/// # Errors
/// Returns [`Error::Labels`] for any other kind of image, and the errors of [`crate::read`].
pub fn read_labels(bytes: &[u8]) -> Result<LabelImage> {
    let (kind, format) = guess_format(bytes)?;
    if kind != ImageFormat::Png {
        let problem = match kind {
            ImageFormat::Jpeg => "a jpeg image, whose compression changes class numbers".to_owned(),
            _ => format!("a {format} image"),
        };
        return Err(Error::Labels { problem });
    }
    if !has_whole_palette(bytes) {
        let problem = "a PNG whose palette ends inside a color".to_owned();
        return Err(Error::Labels { problem });
    }
    // The decoder has no state that outlives this call, so a panic leaves nothing half-modified
    // behind.
    match catch_unwind(AssertUnwindSafe(|| read_png(bytes))) {
        Ok(labels) => labels,
        Err(payload) => {
            let message = base::panic_message(payload.as_ref()).unwrap_or("no message").to_owned();
            Err(Error::DecoderPanic { format, message })
        }
    }
}

fn read_png(bytes: &[u8]) -> Result<LabelImage> {
    let limits = Limits { bytes: MAX_IMAGE_BYTES as usize };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(decoding)?;
    let (width, height) = reader.info().size();
    let size = reader.output_buffer_size().unwrap_or(usize::MAX);
    check_size(width, height, size as u64).map_err(|failure| failure.into_error("png"))?;
    let mut buffer = vec![0; size];
    let frame = reader.next_frame(&mut buffer).map_err(decoding)?;
    let rows = buffer.chunks_exact(frame.line_size.max(1)).take(height as usize);
    let pixels = match (frame.color_type, frame.bit_depth) {
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            let values = rows.flat_map(|row| row.as_chunks::<2>().0);
            LabelPixels::Ids(values.map(|&value| u16::from_be_bytes(value)).collect())
        }
        (ColorType::Grayscale | ColorType::Indexed, depth) => {
            let row = |row| unpacked(row, depth as u8, width as usize);
            LabelPixels::Ids(rows.flat_map(row).collect())
        }
        (ColorType::Rgb, BitDepth::Eight) => {
            LabelPixels::Colors(rows.flat_map(|row| row.as_chunks::<3>().0).copied().collect())
        }
        (color, depth) => {
            let problem = format!("a PNG of type {color:?} with {} bits", depth as u8);
            return Err(Error::Labels { problem });
        }
    };
    Ok(LabelImage { width, height, pixels })
}

/// Unpacks a row of `width` values of 1, 2, 4, or 8 bits each; the first is in the highest bits.
fn unpacked(row: &[u8], bits: u8, width: usize) -> impl Iterator<Item = u16> {
    let mask = ((1_u16 << bits) - 1) as u8;
    let values = row.iter().flat_map(move |&byte| {
        (1..=8 / bits).map(move |place| u16::from(byte >> (8 - place * bits) & mask))
    });
    values.take(width)
}

fn decoding(error: png::DecodingError) -> Error {
    let source = match error {
        png::DecodingError::IoError(error) => ImageError::IoError(error),
        error => ImageError::Decoding(DecodingError::new(ImageFormat::Png.into(), error)),
    };
    Failure::Image(source).into_error("png")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes a PNG whose stored bytes are `data`.
    fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if color == ColorType::Indexed {
            encoder.set_palette(vec![200, 10, 10, 0, 0, 0, 9, 9, 9, 128, 64, 0]);
        }
        encoder.write_header().unwrap().write_image_data(data).unwrap();
        bytes
    }

    #[test]
    fn palette_indices_are_not_colors() {
        let bytes = png(3, 2, ColorType::Indexed, BitDepth::Eight, &[0, 3, 2, 1, 1, 0]);
        let expected = LabelPixels::Ids(vec![0, 3, 2, 1, 1, 0]);
        let labels = read_labels(&bytes).unwrap();
        assert_eq!((labels.width, labels.height, labels.pixels), (3, 2, expected));
    }

    #[test]
    fn few_bits_are_not_stretched() {
        // Each row has three values of 2 bits, and two bits of padding.
        let data = [0b00_01_11_10, 0b10_00_11_01];
        for color in [ColorType::Indexed, ColorType::Grayscale] {
            let labels = read_labels(&png(3, 2, color, BitDepth::Two, &data)).unwrap();
            assert_eq!(labels.pixels, LabelPixels::Ids(vec![0, 1, 3, 2, 0, 3]), "{color:?}");
        }
        let bytes = png(9, 1, ColorType::Grayscale, BitDepth::One, &[0b1010_0001, 0b1000_0000]);
        let expected = LabelPixels::Ids(vec![1, 0, 1, 0, 0, 0, 0, 1, 1]);
        assert_eq!(read_labels(&bytes).unwrap().pixels, expected);
    }

    #[test]
    fn sixteen_bits_and_colors_are_kept() {
        let bytes = png(2, 1, ColorType::Grayscale, BitDepth::Sixteen, &[1, 2, 0, 255]);
        assert_eq!(read_labels(&bytes).unwrap().pixels, LabelPixels::Ids(vec![258, 255]));
        let bytes = png(2, 1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3, 4, 5, 6]);
        let expected = LabelPixels::Colors(vec![[1, 2, 3], [4, 5, 6]]);
        assert_eq!(read_labels(&bytes).unwrap().pixels, expected);
    }

    #[test]
    fn other_images_are_refused_by_name() {
        let bytes = png(1, 1, ColorType::Rgba, BitDepth::Eight, &[1, 2, 3, 4]);
        let error = read_labels(&bytes).unwrap_err().to_string();
        assert!(error.contains("Rgba") && error.contains("PNG"), "{error}");
        let mut jpeg = Cursor::new(Vec::new());
        image::RgbImage::new(8, 8).write_to(&mut jpeg, ImageFormat::Jpeg).unwrap();
        assert!(read_labels(jpeg.get_ref()).unwrap_err().to_string().contains("jpeg"));
        let whole = png(40, 40, ColorType::Indexed, BitDepth::Eight, &[1; 1600]);
        for end in 0..whole.len() - 12 {
            assert!(read_labels(&whole[..end]).is_err(), "cut at {end} of {}", whole.len());
        }
    }
}
