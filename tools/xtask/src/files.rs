//! Files of what is made to travel: copied, written, stripped.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::fail::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// Copies one file.
///
/// # Errors
/// Names both files.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .context(|| format!("cannot copy {} to {}", from.display(), to.display()))
        .map(drop)
}

/// Writes one file.
///
/// # Errors
/// Names the file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

/// Makes a folder, and those above it.
///
/// # Errors
/// Names the folder.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("cannot make {}", path.display()))
}

/// Lets everyone run a file.
///
/// # Errors
/// Names the file.
pub fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .context(|| format!("cannot make {} executable", path.display()))
}

/// Copies a program without what only a debugger reads.
///
/// # Errors
/// `strip` is missing, or fails.
pub fn strip(workspace: &Workspace, from: &Path, to: &Path) -> Result<()> {
    process::run(workspace.command("strip").arg("-o").arg(to).arg(from))
}
