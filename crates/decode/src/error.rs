//! Errors of this crate: what is wrong with the bytes.

use base::counted;

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why bytes are not a usable image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is empty.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// The bytes are not an image of a supported format.
    #[error("not an image: the content is not JPEG, PNG, WebP, TIFF, or BMP")]
    UnknownFormat,
    /// The decoder rejected the bytes.
    #[error("broken {format} image")]
    Decode {
        /// Format according to the content.
        format: &'static str,
        /// The error of the decoder.
        source: image::ImageError,
    },
    /// The image ends before its last pixel.
    #[error("{format} image is cut off: the file ends early")]
    Truncated {
        /// Format according to the content.
        format: &'static str,
    },
    /// The image has more pixels than the limit allows.
    #[error(
        "{format} image of {width}x{height} pixels: more than {max_pixels} pixels are refused as \
         a decompression bomb"
    )]
    TooLarge {
        /// Format according to the content.
        format: &'static str,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// The number of channels differs from the requested one.
    #[error("{format} image with {} (expected {expected})", counted(*.found, "channel", "channels"))]
    Channels {
        /// Format according to the content.
        format: &'static str,
        /// Number of channels in the file.
        found: usize,
        /// Requested number of channels.
        expected: usize,
    },
    /// The image is of a kind that cannot contain class numbers.
    #[error(
        "a label image must be a PNG of gray values, palette indices, or 8-bit RGB, but this is \
         {problem}"
    )]
    Labels {
        /// What it is instead.
        problem: String,
    },
    /// The decoder panicked, which is a bug in the decoder.
    #[error("the {format} decoder failed on this image: {message}")]
    DecoderPanic {
        /// Format according to the content.
        format: &'static str,
        /// The message of the decoder.
        message: String,
    },
}
