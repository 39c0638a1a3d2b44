//! The crate's error: what is wrong with the bytes.

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why bytes are no usable image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of no bytes.
    #[error("the file is empty (0 bytes)")]
    Empty,
    /// Bytes that are no image of a format we read.
    #[error("not an image: the content is none of JPEG, PNG, WebP, TIFF, BMP")]
    UnknownFormat,
    /// The decoder refused the bytes.
    #[error("broken {format} image")]
    Decode {
        /// Format by content.
        format: &'static str,
        /// The decoder's reason.
        source: image::ImageError,
    },
    /// An image that ends before its last pixel.
    #[error("{format} image is cut off: the file ends early")]
    Truncated {
        /// Format by content.
        format: &'static str,
    },
    /// More pixels than the limit allows.
    #[error(
        "{format} image of {width}x{height} pixels: more than {max_pixels} pixels are refused as \
         a decompression bomb"
    )]
    TooLarge {
        /// Format by content.
        format: &'static str,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The limit.
        max_pixels: u64,
    },
    /// Another number of channels than was asked for.
    #[error("{format} image of {found} channels, where {expected} are asked for")]
    Channels {
        /// Format by content.
        format: &'static str,
        /// Channels of the file.
        found: usize,
        /// Channels asked for.
        expected: usize,
    },
    /// The decoder itself failed (a defect in it, not in this crate).
    #[error("the {format} decoder failed on this image: {message}")]
    DecoderPanic {
        /// Format by content.
        format: &'static str,
        /// What the decoder said.
        message: String,
    },
}
