//! What a file of `torch.save` holds, and what reading it may take.

use std::collections::BTreeMap;

use crate::weights::stored::StoredTensor;

/// Longest pickle that is run; those of the largest published checkpoints have under 2 MB.
pub(super) const MAX_PICKLE: u64 = 128 << 20;

/// How `torch.save` packed a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packing {
    /// A zip archive, since torch 1.6.
    Zip,
    /// Pickles one after the other, then the storages.
    Legacy,
}

/// What a file of `torch.save` holds; tensors are still in the file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) packing: Packing,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// Numbers and words by the same kind of key, and the class of each opaque object.
    pub(crate) values: BTreeMap<String, String>,
}

/// Bytes that the arena of a pickle may take in a file of `file_len` bytes: small files get a
/// constant more, since theirs are mostly names.
pub(super) fn arena_budget(file_len: u64) -> usize {
    const FLOOR: u64 = 4 << 20;
    usize::try_from(file_len.saturating_add(FLOOR)).unwrap_or(usize::MAX)
}
