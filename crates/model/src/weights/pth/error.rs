//! Errors of reading .pth files.

/// Reasons why a .pth file, or a tensor in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// The file could not be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// Neither of the two formats of `torch.save`.
    #[error("was not written by torch.save: {0}")]
    Format(&'static str),
    /// The file ends too early.
    #[error("ends in the middle of {0}; fetch it again")]
    Truncated(&'static str),
    /// The archive around the pickle is damaged.
    #[error("has a broken archive: {0}; fetch it again")]
    Archive(&'static str),
    /// A part of the archive is compressed, which torch.save never does.
    #[error("stores {0} compressed: save it again with torch.save")]
    Compressed(String),
    /// A required part of the archive is missing.
    #[error("lacks {0}; fetch it again")]
    Missing(String),
    /// A pickle violates the rules of the format.
    #[error("has a broken pickle: {0} at byte {1}")]
    Pickle(&'static str, usize),
    /// An instruction that torch's pickles never contain.
    #[error(
        "has a pickle with the instruction 0x{0:02x} at byte {1}, which torch.save does not write"
    )]
    Opcode(u8, usize),
    /// A limit was exceeded.
    #[error("has more {what} than the limit of {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The accepted maximum.
        limit: usize,
    },
    /// The pickle requests more memory than the size of the file justifies.
    #[error("has a pickle that expands beyond the size of the file")]
    Unfolds,
    /// The numbers of a tensor are inconsistent or do not fit its storage.
    #[error("has a tensor {name} {problem}")]
    Tensor {
        /// Its key.
        name: String,
        /// The problem.
        problem: &'static str,
    },
    /// The file was written on a machine with the other byte order.
    #[error("was written on a big-endian machine, which is not supported")]
    BigEndian,
}

/// Result type for reading a .pth file.
pub(crate) type Result<T> = std::result::Result<T, PthError>;
