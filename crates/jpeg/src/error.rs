//! The crate's error: what is wrong with the bytes.

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes do not begin as a JPEG file does.
    #[error("the bytes are not a jpeg file")]
    NotJpeg,
    /// The file ends before its last pixel, or lacks data that a complete picture needs.
    #[error("the jpeg file ends early")]
    Truncated,
    /// A kind of JPEG that is not decoded.
    #[error("jpeg files with {what} are not supported")]
    Unsupported {
        /// What the file has.
        what: &'static str,
    },
    /// A segment is not as the standard wants it, or contradicts itself or others.
    #[error("a header segment of the jpeg file is broken (marker 0x{marker:02x})")]
    Segment {
        /// Second byte of the segment's marker.
        marker: u8,
    },
    /// A scan names a table that the file does not define.
    #[error("the jpeg file lacks a {what} table that its scan uses")]
    MissingTable {
        /// "quantization" or "huffman".
        what: &'static str,
    },
    /// A table with more codes than code words of those lengths.
    #[error("a huffman table of the jpeg file has more codes than fit")]
    Oversubscribed,
    /// A code word that is in no table, a size that no mean has, a coefficient behind the last one of
    /// its scan, or a marker where none may be.
    #[error("the entropy-coded data of the jpeg file is corrupt")]
    Corrupt,
    /// A restart marker is missing or out of turn.
    #[error("the jpeg file lacks a restart marker where one is due")]
    Restart,
}
