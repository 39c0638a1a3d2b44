//! The contents of a `torch.save` file, and the limits for reading it.

use std::collections::BTreeMap;

use crate::weights::stored::StoredTensor;

/// Longest pickle that is processed, in bytes; those of the largest published checkpoints take less
/// than 2 MB.
pub(super) const MAX_PICKLE: u64 = 128 << 20;

/// The format that `torch.save` used for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A zip archive, since torch 1.6.
    Zip,
    /// Consecutive pickles, then the storages.
    Legacy,
}

/// The contents of a `torch.save` file; tensor data stays in the file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) packing: Packing,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// Numbers and strings by key, like the tensors, and the class of each opaque object.
    pub(crate) values: BTreeMap<String, String>,
}

/// Returns the maximum size in bytes of a pickle's arena for a file of `file_len` bytes. A constant
/// is added for small files, because they consist mostly of names.
pub(super) fn arena_budget(file_len: u64) -> usize {
    const FLOOR: u64 = 4 << 20;
    usize::try_from(file_len.saturating_add(FLOOR)).unwrap_or(usize::MAX)
}
