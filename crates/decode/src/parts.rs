//! The result of reading a format, and the reasons for failure.

use image::ImageError;
use image::error::{LimitError, LimitErrorKind};
use image::metadata::Orientation;

use crate::raw::{Layout, Values};

/// Maximum size in bytes of one image's pixels before they are converted to RGB: a guard against
/// decompression bombs that leaves room for 170 megapixels.
pub const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Maximum number of pixels in an image of any format: the number at which Pillow reports a
/// decompression bomb and refuses the file.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What can be wrong with an image whose format is known.
pub(crate) enum Failure {
    TooLarge { width: u32, height: u32 },
    Truncated,
    Image(ImageError),
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// The values, their layout, and the orientation.
pub(crate) type Parts = (Values, Layout, Orientation);

/// Refuses images with more than [`MAX_PIXELS`] or [`MAX_IMAGE_BYTES`].
pub(crate) fn check_size(width: u32, height: u32, bytes: u64) -> std::result::Result<(), Failure> {
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Failure::TooLarge { width, height });
    }
    if bytes > MAX_IMAGE_BYTES {
        let kind = LimitErrorKind::InsufficientMemory;
        return Err(ImageError::Limits(LimitError::from_kind(kind)).into());
    }
    Ok(())
}
