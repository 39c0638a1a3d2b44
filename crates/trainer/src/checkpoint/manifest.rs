//! The manifest of a checkpoint: the SHA-256 of every other file in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::files::{read_json, write_json};

/// File name of the manifest in a checkpoint.
pub(super) const MANIFEST: &str = "manifest.json";

/// Returns the SHA-256 of a file in hexadecimal.
pub(super) fn sha256_of(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path, "open the file"))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let n = file.read(&mut buffer).map_err(Error::io(path, "read the file"))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes the manifest of all files in `dir` and flushes it to disk.
pub(super) fn write(dir: &Path) -> Result<()> {
    let mut hashes = BTreeMap::new();
    let entries = fs::read_dir(dir).map_err(Error::io(dir, "list the folder"))?;
    for entry in entries {
        let path = entry.map_err(Error::io(dir, "list the folder"))?.path();
        if let Some(name) = path.file_name().and_then(|n| n.to_str())
            && name != MANIFEST
        {
            hashes.insert(name.to_owned(), sha256_of(&path)?);
        }
    }
    write_json(&dir.join(MANIFEST), &hashes)
}

/// Checks one file, if it is part of a checkpoint; other files are accepted unchecked.
///
/// # Errors
/// Returns an error if the manifest next to the file is unreadable, or if it lists the file and the
/// file differs.
pub fn verify_file(file: &Path) -> Result<()> {
    let Some(dir) = file.parent().filter(|dir| dir.join("state.json").is_file()) else {
        return Ok(());
    };
    let path = dir.join(MANIFEST);
    if !path.is_file() {
        return Ok(()); // some files of a checkpoint, copied by hand
    }
    let hashes: BTreeMap<String, String> = read_json(&path)?;
    let name = file.file_name().and_then(|name| name.to_str());
    match name.and_then(|name| hashes.get(name)) {
        Some(expected) => same(file, expected),
        None => Ok(()),
    }
}

fn same(file: &Path, expected: &str) -> Result<()> {
    if sha256_of(file)? == expected {
        return Ok(());
    }
    Err(Error::Checkpoint {
        path: file.to_owned(),
        reason: "has been changed or damaged since it was written (its SHA-256 does not match \
             manifest.json)"
            .into(),
    })
}

/// Checks every file that the manifest of a checkpoint lists.
///
/// # Errors
/// Returns an error if the manifest is missing or unreadable, or if a file is missing or differs.
pub fn verify(dir: &Path) -> Result<()> {
    let path = dir.join(MANIFEST);
    let hashes: BTreeMap<String, String> = read_json(&path)?;
    for (name, expected) in hashes {
        let file = dir.join(&name);
        if !file.is_file() {
            return Err(Error::Checkpoint {
                path: file,
                reason: "is missing from the checkpoint".into(),
            });
        }
        same(&file, &expected)?;
    }
    Ok(())
}
