//! Bytes with random access, wherever they are: what shards are read from.

mod cursor;
mod failure;
mod local;
#[cfg(feature = "remote")]
mod remote;
mod spool;

use std::fmt::Debug;
use std::io;
use std::path::Path;

pub(crate) use cursor::Cursor;
pub(crate) use failure::{failure_in, read_error};
pub(crate) use local::{LocalFile, plain_file};
#[cfg(feature = "remote")]
pub(crate) use remote::{Place, Stores};
pub(crate) use spool::{Spool, SpoolError, SpoolLimits};

/// An object of fixed length that is read at any place from any number of threads.
pub(crate) trait Blob: Send + Sync + Debug {
    /// Path or address, for messages.
    fn path(&self) -> &Path;

    /// Number of bytes.
    fn len(&self) -> u64;

    /// Fills `buffer` with the bytes that begin at `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The whole of the object whose name is this one's with `suffix` behind it; none if there is
    /// no such object.
    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>>;

    /// Bytes that sequential reading asks for at a time.
    fn block(&self) -> usize {
        16 << 10
    }
}
