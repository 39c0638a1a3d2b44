//! The crate's error: what is wrong with the bytes.

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Why a file that this crate is made for cannot be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends before its last pixel.
    #[error("the jpeg file ends early")]
    Truncated,
    /// A segment of the header contradicts itself.
    #[error("a header segment of the jpeg file is broken (marker 0x{marker:02x})")]
    Segment {
        /// Second byte of the segment's marker.
        marker: u8,
    },
    /// The scan names a table that the file does not define.
    #[error("the jpeg file lacks a {what} table that its scan uses")]
    MissingTable {
        /// "quantisation" or "huffman".
        what: &'static str,
    },
    /// A table with more codes than code words of those lengths.
    #[error("a huffman table of the jpeg file has more codes than fit")]
    Oversubscribed,
    /// A code word that is in no table, a size that no mean has, a coefficient behind the 64th, or a
    /// marker where none may be.
    #[error("the entropy-coded data of the jpeg file is corrupt")]
    Corrupt,
    /// A restart marker is missing or out of turn.
    #[error("the jpeg file lacks a restart marker where one is due")]
    Restart,
}
