//! Reads JPEG files with our own decoder, the crate `jpeg`, whose decision is final: what it
//! rejects is not an image. Other decoders silently fill missing parts with gray.

use ::jpeg::{Error, Jpeg};
use image::error::{DecodingError, UnsupportedError, UnsupportedErrorKind};
use image::{ImageError, ImageFormat};

use crate::orientation::{self, Metadata};
use crate::parts::{Failure, Parts, check_size};
use crate::raw::{Layout, Values};

/// Reads a file.
///
/// # Errors
/// Returns a [`Failure`] of any kind.
pub(super) fn read(bytes: &[u8]) -> Result<Parts, Failure> {
    let jpeg = Jpeg::open(bytes).map_err(failed)?;
    let (width, height, channels) = (jpeg.width(), jpeg.height(), jpeg.channels());
    check_size(width, height, u64::from(width) * u64::from(height) * channels as u64)?;
    let values = Values::U8(jpeg.decode().map_err(failed)?);
    let orientation = orientation::of(&Metadata { exif: jpeg.exif(), xmp: jpeg.xmp() });
    let layout = Layout { width, height, channels, plane: None, alpha: false };
    Ok((values, layout, orientation))
}

/// Converts an error of the crate `jpeg` to one of this crate.
pub(super) fn failed(error: Error) -> Failure {
    let format = ImageFormat::Jpeg.into();
    match error {
        Error::Truncated => Failure::Truncated,
        Error::Unsupported { .. } => {
            let kind = UnsupportedErrorKind::GenericFeature(error.to_string());
            ImageError::Unsupported(UnsupportedError::from_format_and_kind(format, kind)).into()
        }
        _ => ImageError::Decoding(DecodingError::new(format, error)).into(),
    }
}
