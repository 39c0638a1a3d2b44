//! Files of `torch.save`, read without running anything.
//!
//! A pickle is a program for a small machine whose instructions can call any function by name.
//! `machine` runs it without calling: what a pickle would build becomes a tree of plain values,
//! in which a call is a node that says what would have been called. `tree` then recognises the
//! calls by which torch rebuilds tensors, and dictionaries; every other object (an argparse
//! namespace, an omegaconf config, somebody's class) stays an opaque value.
//!
//! Nothing is trusted. The tree lives in one arena whose size is charged against the size of the
//! file, text stays in the bytes of the pickle, and a tensor must fit into its storage and the
//! storage into the file. Tensors are read one by one when asked for.

mod error;
mod kinds;
mod legacy;
mod machine;
mod tree;
mod values;
mod zip;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

pub use error::PthError;

use error::Result;

use super::stored::StoredTensor;

/// Longest pickle that is run; those of the largest published checkpoints have under 2 MB.
const MAX_PICKLE: u64 = 128 << 20;

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

/// Whether `head`, the first bytes of a file, may be one of `torch.save`.
pub(crate) fn looks_like(head: &[u8]) -> bool {
    zip::looks_like(head) || head.first() == Some(&machine::PROTO)
}

/// Reads everything but the tensors.
pub(crate) fn read(file: &mut File) -> Result<Contents> {
    let len = file.metadata()?.len();
    let mut head = Vec::with_capacity(4);
    file.by_ref().take(4).read_to_end(&mut head)?;
    if zip::looks_like(&head) {
        zip::read(file, len)
    } else if head.first() == Some(&machine::PROTO) {
        legacy::read(file, len)
    } else {
        Err(PthError::Format("it begins with neither a zip archive nor a pickle"))
    }
}

/// Bytes that the arena of a pickle may take in a file of `file_len` bytes: small files get a
/// constant more, since theirs are mostly names.
fn arena_budget(file_len: u64) -> usize {
    const FLOOR: u64 = 4 << 20;
    usize::try_from(file_len.saturating_add(FLOOR)).unwrap_or(usize::MAX)
}
