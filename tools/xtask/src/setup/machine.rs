//! Checks what the machine needs before anything is installed: a compiler, disk space, and a known
//! platform.

use std::env::consts::{ARCH, OS};
use std::path::Path;
use std::process::Command;

use super::pinned::TORCH;
use crate::fail::{Result, failed};
use crate::process;
use crate::workspace::Workspace;

/// Free disk space in GB that the installation and the following build need: 2.6 for wheels (twice,
/// while pip unpacks what it keeps in its cache), 4.5 for torch, and 2 for the build.
const NEEDED_GB: u64 = 11;

/// Checks that there is a C++ compiler, which torch-sys and torch-ext need.
pub fn check_compiler(workspace: &Workspace) -> Result<()> {
    let named = std::env::var("CXX").ok().filter(|name| !name.trim().is_empty());
    let compiler = named.as_deref().unwrap_or("c++");
    // CXX may contain arguments or a wrapper, as in "ccache g++".
    let mut words = compiler.split_whitespace();
    let mut command = workspace.command(words.next().unwrap_or("c++"));
    if process::probe(command.args(words).arg("--version")).is_some() {
        return Ok(());
    }
    failed(match named {
        Some(name) => format!(
            "the C++ compiler that CXX names ({name}) does not run: set CXX to one that does, or \
             unset it"
        ),
        None => "there is no C++ compiler (c++) on this machine: install one (Debian, Ubuntu: \
                 apt-get install g++; Fedora: dnf install gcc-c++)"
            .to_owned(),
    })
}

/// Checks that torch has wheels for this platform.
pub fn check_platform() -> Result<()> {
    if OS == "linux" && matches!(ARCH, "x86_64" | "aarch64") {
        return Ok(());
    }
    failed(format!(
        "libtorch is installed automatically only on Linux x86-64 and aarch64, and this is {OS} \
         {ARCH}: set LIBTORCH to the folder of a libtorch {} built for it",
        TORCH
    ))
}

/// Checks that there is enough free disk space for the repository.
pub fn check_disk(root: &Path) -> Result<()> {
    // If the output cannot be parsed, pip will report when the disk is full.
    let Some(free_gb) = process::probe(Command::new("df").arg("-Pk").arg(root))
        .as_deref()
        .and_then(free_kib)
        .map(|kib| kib >> 20)
    else {
        return Ok(());
    };
    if free_gb >= NEEDED_GB {
        return Ok(());
    }
    failed(format!(
        "set-up and build need {NEEDED_GB} GB of free disk space, but {} has {free_gb} GB: free \
         some space, or set LIBTORCH to the folder of an installed libtorch {}",
        root.display(),
        TORCH
    ))
}

/// Returns the column "Available" of `df -Pk`, in KiB.
fn free_kib(df: &str) -> Option<u64> {
    df.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_disk_is_read_from_df() {
        let df = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
                  /dev/vda         264212084 17330596  77955292      19% /\n";
        assert_eq!(free_kib(df), Some(77_955_292));
        assert_eq!(free_kib("df: /x: No such file or directory"), None);
    }
}
