//! Reads `torch.save` files without executing anything.
//!
//! A pickle is a program for a small machine whose instructions can call any function by name.
//! `machine` runs it without making calls: the objects that a pickle would build become a tree of
//! plain values, in which a node records each call. `tree` then recognizes the calls with which
//! torch rebuilds tensors, and dictionaries; every other object (an argparse namespace, an
//! omegaconf config, an instance of an unknown class) stays an opaque value.
//!
//! Files are not trusted. The tree is stored in one arena whose size is charged against the size
//! of the file, text stays in the bytes of the pickle, and a tensor must fit into its storage, and
//! the storage into the file. Tensors are read one by one on request.

mod contents;
mod error;
mod input;
mod kinds;
mod legacy;
mod machine;
mod plain;
mod tree;
mod values;
mod zip;

use std::fs::File;
use std::io::Read;

pub(crate) use contents::{Contents, Packing};
pub use error::PthError;
pub use plain::read_plain_pickle;

use error::Result;

/// Returns whether `head`, the first bytes of a file, may belong to a `torch.save` file.
pub(crate) fn looks_like(head: &[u8]) -> bool {
    zip::looks_like(head) || head.first() == Some(&machine::PROTO)
}

/// Reads everything except tensor data.
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
