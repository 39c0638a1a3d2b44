//! Files of a run, written so that they survive a power cut.

use std::fs;
use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// Writes a file atomically: it is either complete or absent.
///
/// # Errors
/// Returns an error if writing fails; the old file is then unchanged.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    base::write_atomic(path, bytes).map_err(Error::io(path, "write the file"))
}

/// Writes a value as JSON atomically, followed by a newline.
///
/// # Errors
/// Same as [`write_atomic`]. Also returns an error if the value cannot be serialized as JSON.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::io(path, "write the file")(e.into()))?;
    text.push(b'\n');
    write_atomic(path, &text)
}

/// Reads a value from JSON.
///
/// # Errors
/// Returns an error if the file cannot be read or is not JSON of this type.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the file"))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Checkpoint {
        path: path.to_owned(),
        reason: format!("is damaged ({e})"),
    })
}

/// Flushes the entries of a folder, so that a rename survives a power cut.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    base::flush_folder(dir).map_err(Error::io(dir, "flush the folder"))
}
