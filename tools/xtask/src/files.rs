//! Files of the repository, and of what is made to travel: found, read, copied, written, stripped.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::fail::{Context, Result};
use crate::process;
use crate::workspace::Workspace;

/// Folders that are not ours, or that a program fills.
const SKIPPED: [&str; 5] = ["target", "runs", "gpu-bundle", "fixtures", "__pycache__"];

/// Folders that begin with a dot and are ours.
const DOTTED: [&str; 3] = [".github", ".ci", ".cargo"];

/// Returns every file of the repository that we wrote, in order.
///
/// # Errors
/// A folder that cannot be read.
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

/// Reads the text of one file.
///
/// # Errors
/// Names the file.
pub fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).context(|| format!("cannot read {}", path.display()))
}

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
