//! `cargo xtask dist`: packs the program into an archive, which runs on other machines with the
//! torch of their Python.

pub(crate) mod archive;
pub(crate) mod elf;
pub(crate) mod licenses;
mod unpacked;

use std::fs;

use crate::fail::{Context, Result, usage};
use crate::setup;
use crate::workspace::Workspace;

const OUT: &str = "dist";

/// Creates the archive in the given folder, by default `dist`, and prints its requirements.
///
/// # Errors
/// Returns an error if an option is invalid, the build fails, a tool is missing, or a file cannot
/// be written.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let out = match arguments {
        [] => OUT,
        [out] if !out.starts_with('-') => out,
        _ => return usage(format!("dist: expected one folder, got '{}'", arguments.join(" "))),
    };
    setup::run(workspace)?;
    let archive = archive::make(workspace, &workspace.path(out))?;
    println!("dist: {} with its .sha256", archive.path.display());
    println!("dist: it needs {}", archive.needs.symbols.join(", "));
    println!("dist: of torch it needs {}", archive::of_torch(workspace, &archive.needs).join(", "));
    Ok(())
}

/// Creates an archive in a temporary folder, unpacks it, and tests the contents.
///
/// # Errors
/// Returns an error that describes what does not work.
pub fn test(workspace: &Workspace) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("simdino-dist-{}", std::process::id()));
    let tested = archive::make(workspace, &folder)
        .and_then(|archive| unpacked::check(workspace, &archive.path, &folder.join("un packed")));
    let removed =
        fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()));
    tested.and(removed)
}
