//! File operations on the repository and on release archives.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fail::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// Folders that are skipped, because their contents are generated or not ours.
const SKIPPED: [&str; 5] = ["target", "runs", "gpu-bundle", "fixtures", "__pycache__"];

/// Hidden folders that are not skipped.
const DOTTED: [&str; 3] = [".github", ".ci", ".cargo"];

/// Returns every file of the repository that we wrote, sorted.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub fn ours(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        let context = || format!("cannot read {}", folder.display());
        for entry in fs::read_dir(&folder).context(context)? {
            let entry = entry.context(context)?;
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().context(context)?;
            if kind.is_dir() {
                let hidden = name.starts_with('.') && !DOTTED.contains(&name.as_str());
                if !hidden && !SKIPPED.contains(&name.as_str()) {
                    waiting.push(path);
                }
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Reads a text file.
///
/// # Errors
/// Returns an error that names the file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))
}

/// Copies a file.
///
/// # Errors
/// Returns an error that names both files.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .context(|| format!("cannot copy {} to {}", from.display(), to.display()))
        .map(drop)
}

/// Writes a text file.
///
/// # Errors
/// Returns an error that names the file.
pub fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

/// Creates a folder and its parents.
///
/// # Errors
/// Returns an error that names the folder.
pub fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).context(|| format!("cannot create {}", path.display()))
}

/// Makes a file executable for everyone.
///
/// # Errors
/// Returns an error that names the file.
pub fn make_executable(path: &Path) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(0o755))
        .context(|| format!("cannot make {} executable", path.display()))
}

/// Copies a program without its symbols.
///
/// # Errors
/// Returns an error if `strip` is missing or fails.
pub fn strip(workspace: &Workspace, from: &Path, to: &Path) -> Result<()> {
    process::run(workspace.command("strip").arg("-o").arg(to).arg(from))
}
