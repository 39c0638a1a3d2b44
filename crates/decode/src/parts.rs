//! The result of reading a file of a known format, and the reasons for failure.

use image::ImageError;
use image::error::{LimitError, LimitErrorKind};
use image::metadata::Orientation;

use crate::error::Error;
use crate::raw::{Layout, Values};

/// Maximum size of one image's pixels before they are converted to RGB, in bytes. It guards against
/// decompression bombs, and leaves room for 170 megapixels.
pub const MAX_IMAGE_BYTES: u64 = 512 << 20;

/// Maximum number of pixels in an image of any format. Pillow rejects larger images as
/// decompression bombs.
pub const MAX_PIXELS: u64 = 178_956_970;

/// What can be wrong with an image whose format is known.
pub(crate) enum Failure {
    TooLarge { width: u32, height: u32 },
    Truncated,
    Image(ImageError),
}

impl Failure {
    /// Returns the error for an image of this format.
    pub(crate) fn into_error(self, format: &'static str) -> Error {
        match self {
            Self::TooLarge { width, height } => {
                Error::TooLarge { format, width, height, max_pixels: MAX_PIXELS }
            }
            Self::Truncated => Error::Truncated { format },
            Self::Image(source) if is_end_of_file(&source) => Error::Truncated { format },
            Self::Image(source) => Error::Decode { format, source },
        }
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// The values, their layout, and the orientation.
pub(crate) type Parts = (Values, Layout, Orientation);

/// Rejects images with more than [`MAX_PIXELS`] pixels or [`MAX_IMAGE_BYTES`] bytes.
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

/// Returns whether the decoder ran out of bytes, according to any error in the chain of causes.
fn is_end_of_file(error: &ImageError) -> bool {
    if let ImageError::IoError(io) = error {
        return io.kind() == std::io::ErrorKind::UnexpectedEof;
    }
    let mut next = std::error::Error::source(error);
    while let Some(reason) = next {
        let io = reason.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::UnexpectedEof) {
            return true;
        }
        next = reason.source();
    }
    false
}
