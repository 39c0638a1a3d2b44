//! Reading and writing JSON files.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{EntryError, Error, Result};

/// Reads a JSON file, which errors describe as not being `expected` if it is invalid.
pub(super) fn read<T: DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T> {
    let path = path.to_owned();
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(source) => return Err(Error::Read { path, source }),
    };
    serde_json::from_slice(&bytes).map_err(|source| {
        let (line, column) = (source.line(), source.column());
        match not_a_number(&bytes, line, column) {
            Some(word) => Error::NotANumber { path, word, line, column },
            None => Error::Json { path, expected, source },
        }
    })
}

/// Returns the `NaN` or `Infinity` at this position, which Python writes but JSON does not allow.
/// The search also covers the characters just before it, which the parser may already have
/// consumed.
fn not_a_number(bytes: &[u8], line: usize, column: usize) -> Option<&'static str> {
    let line = bytes.split(|&byte| byte == b'\n').nth(line.checked_sub(1)?)?;
    let near = (column.saturating_sub(3)..=column).filter_map(|start| line.get(start..));
    let words = ["NaN", "Infinity"];
    near.flat_map(|text| words.into_iter().filter(|word| text.starts_with(word.as_bytes()))).next()
}

/// Writes a JSON file atomically.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    base::write_atomic_with(path, |file| {
        serde_json::to_writer(&mut *file, value)?;
        file.write_all(b"\n")
    })
    .map_err(failed)
}

/// Returns the error for an entry of a file.
pub(crate) fn entry_error(name: &str, entry: impl fmt::Display, source: EntryError) -> Error {
    Error::Entry { name: name.to_owned(), entry: entry.to_string(), source }
}
