//! Finds wheels in a folder.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::fail::{Context, Result, failed};

/// Returns the only wheel in a folder whose name starts with `start`.
///
/// # Errors
/// Returns an error if there is none, or several.
pub fn wheel_in(folder: &Path, start: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).context(|| format!("cannot read {}", folder.display()))?;
    let is_it = |path: &PathBuf| {
        path.extension() == Some(OsStr::new("whl"))
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    };
    let mut found = entries.filter_map(|entry| Some(entry.ok()?.path())).filter(is_it);
    match (found.next(), found.next()) {
        (Some(wheel), None) => Ok(wheel),
        (None, _) => failed(format!("no wheel {start}* was created in {}", folder.display())),
        _ => failed(format!("{} has several wheels {start}*: empty it", folder.display())),
    }
}
