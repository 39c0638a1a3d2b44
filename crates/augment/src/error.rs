//! Errors that can occur between an image and its crops.

use crate::crop::CropBox;

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why crops cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting is outside its range or does not fit the others.
    #[error("{key}: {problem}")]
    Config {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A buffer does not have the size that the crops need.
    #[error("{what}: expected {expected}, got {got}")]
    Buffer {
        /// Which buffer or count.
        what: &'static str,
        /// Expected size.
        expected: usize,
        /// Actual size.
        got: usize,
    },
    /// The area of a crop is not inside the image.
    #[error("the crop {area:?} does not lie inside an image of {width}x{height} pixels")]
    CropOutside {
        /// The crop.
        area: CropBox,
        /// Width of the image in pixels.
        width: u32,
        /// Height of the image in pixels.
        height: u32,
    },
}
