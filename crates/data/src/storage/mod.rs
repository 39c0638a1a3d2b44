//! Random access to bytes, wherever they are stored.

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

/// An object of fixed length that can be read at any offset from any number of threads.
pub(crate) trait Blob: Send + Sync + Debug {
    /// Returns the path or URL, for messages.
    fn path(&self) -> &Path;

    /// Returns the number of bytes.
    fn len(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on. Fails if there are not that many.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Reads the whole object whose name is this one's followed by `suffix`. Returns `None` if
    /// there is no such object.
    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>>;

    /// Returns the number of bytes that sequential reading requests at a time, at first.
    fn block(&self) -> usize {
        16 << 10
    }
}
