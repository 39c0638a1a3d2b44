//! Writes charts side by side to one SVG file.

use std::path::{Path, PathBuf};

use crate::failure::{Context, Failure, Result};
use crate::out::folder_for;
use report::chart::{Chart, svg_of};

/// Checks that the name of a figure ends in `.svg`, before anything is computed.
///
/// # Errors
/// Returns an error if it does not.
pub fn check_name(path: Option<&PathBuf>) -> Result<()> {
    match path {
        Some(path) if path.extension().is_none_or(|e| !e.eq_ignore_ascii_case("svg")) => {
            Err(Failure::usage(format!("--plot: must end in .svg (got {})", path.display())))
        }
        _ => Ok(()),
    }
}

/// Writes the charts atomically, and creates the folder of the file if necessary.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn write(charts: &[Chart], path: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", path.display());
    folder_for(path).context(failed)?;
    base::write_atomic(path, svg_of(charts).as_bytes()).context(failed)
}
