//! Reads formats for which the `image` crate yields the same pixels as Pillow.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::parts::{Failure, MAX_IMAGE_BYTES, check_size};

/// Reads an image with the `image` crate, without applying the orientation.
pub(crate) fn read_dynamic(bytes: &[u8], format: ImageFormat) -> Result<DynamicImage, Failure> {
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_IMAGE_BYTES);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    reader.limits(limits);
    let decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    // Not every decoder checks the size of the image against the limits by itself.
    check_size(width, height, decoder.total_bytes())?;
    Ok(DynamicImage::from_decoder(decoder)?)
}
