//! The folders of files that a command writes.

use std::fs;
use std::io;
use std::path::Path;

/// Creates the folder of a file that is about to be written, with all folders above it.
///
/// # Errors
/// Returns an error if the folder cannot be created.
pub fn folder_for(file: &Path) -> io::Result<()> {
    match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => fs::create_dir_all(folder),
        _ => Ok(()),
    }
}
