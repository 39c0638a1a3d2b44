//! `cargo xtask dist`: one archive with the program, which runs on another machine on the torch of its
//! Python.

pub(crate) mod archive;
pub(crate) mod elf;
pub(crate) mod licenses;
mod unpacked;

use std::fs;

use crate::fail::{Context, Result, usage};
use crate::setup;
use crate::workspace::Workspace;

const OUT: &str = "dist";

/// Makes the archive in the folder that is named, or in `dist`, and says what it needs.
///
/// # Errors
/// A wrong option, a build that fails, a tool that is missing, or no room.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let out = match arguments {
        [] => OUT,
        [out] if !out.starts_with('-') => out,
        _ => return usage(format!("dist takes one folder, not '{}'", arguments.join(" "))),
    };
    setup::run(workspace)?;
    let archive = archive::make(workspace, &workspace.path(out))?;
    println!("dist: {} with its .sha256", archive.path.display());
    println!("dist: it needs {}", archive.needs.symbols.join(", "));
    println!("dist: of torch it needs {}", archive::of_torch(workspace, &archive.needs).join(", "));
    Ok(())
}

/// Makes an archive in a temporary folder, unpacks it, and uses what is inside.
///
/// # Errors
/// What does not work there.
pub fn test(workspace: &Workspace) -> Result<()> {
    let folder = std::env::temp_dir().join(format!("simdino-dist-{}", std::process::id()));
    let tested = archive::make(workspace, &folder)
        .and_then(|archive| unpacked::check(workspace, &archive.path, &folder.join("un packed")));
    let removed =
        fs::remove_dir_all(&folder).context(|| format!("cannot remove {}", folder.display()));
    tested.and(removed)
}
