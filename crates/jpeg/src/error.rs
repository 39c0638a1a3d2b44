//! Errors of this crate: what is wrong with the bytes.

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Reasons why a file cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not start like a JPEG file.
    #[error("the bytes are not a jpeg file")]
    NotJpeg,
    /// The file ends before its last pixel, or lacks data that a complete image needs.
    #[error("the jpeg file ends early")]
    Truncated,
    /// An unsupported kind of JPEG.
    #[error("jpeg files with {what} are not supported")]
    Unsupported {
        /// The unsupported feature.
        what: &'static str,
    },
    /// A segment violates the standard, or contradicts itself or another segment.
    #[error("a header segment of the jpeg file is broken (marker 0x{marker:02x})")]
    Segment {
        /// Second byte of the segment's marker.
        marker: u8,
    },
    /// A scan refers to a table that the file does not define.
    #[error("the jpeg file lacks a {what} table that its scan uses")]
    MissingTable {
        /// "quantization" or "huffman".
        what: &'static str,
    },
    /// A Huffman table has more codes than its code lengths allow.
    #[error("a huffman table of the jpeg file has more codes than fit")]
    Oversubscribed,
    /// A code word that is in no table, an invalid size of a DC coefficient, a coefficient after
    /// the last one of its scan, or a marker at an invalid position.
    #[error("the entropy-coded data of the jpeg file is corrupt")]
    Corrupt,
    /// A restart marker is missing or out of order.
    #[error("the jpeg file lacks a restart marker where one is expected")]
    Restart,
}
