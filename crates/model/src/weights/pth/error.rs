//! What can be wrong with a .pth file.

/// Why a .pth file, or a tensor in it, cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PthError {
    /// The file could not be read.
    #[error("cannot be read")]
    Io(#[from] std::io::Error),
    /// Neither of the two formats of `torch.save`.
    #[error("is not a file of torch.save: {0}")]
    Format(&'static str),
    /// The file ends too early.
    #[error("ends in the middle of {0}; fetch it again")]
    Truncated(&'static str),
    /// The archive around the pickle is broken.
    #[error("has a broken archive: {0}; fetch it again")]
    Archive(&'static str),
    /// A part of the archive is compressed, which torch.save never does.
    #[error("keeps {0} compressed: save it again with torch.save")]
    Compressed(String),
    /// A part of the archive that must be there is not.
    #[error("lacks {0}; fetch it again")]
    Missing(String),
    /// A pickle that breaks the rules of the format.
    #[error("has a broken pickle: {0} at byte {1}")]
    Pickle(&'static str, usize),
    /// An instruction that no pickle of torch has.
    #[error(
        "has a pickle with the instruction 0x{0:02x} at byte {1}, which torch.save does not write"
    )]
    Opcode(u8, usize),
    /// More than a limit allows.
    #[error("holds more {what} than the {limit} that are accepted")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many are accepted.
        limit: usize,
    },
    /// The pickle asks for more memory than a file of this size deserves.
    #[error("has a pickle that unfolds beyond the size of its file")]
    Unfolds,
    /// The numbers of a tensor do not fit together or not into its storage.
    #[error("has a tensor {name} {problem}")]
    Tensor {
        /// Its key.
        name: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// Written on a machine with the other byte order.
    #[error("was written on a big-endian machine, which is not supported")]
    BigEndian,
}

/// Result of reading a .pth file.
pub(crate) type Result<T> = std::result::Result<T, PthError>;
