//! The Python that setup uses for the installation.

use std::ffi::OsString;
use std::path::PathBuf;

use super::pinned::{TORCH, VENV_PYTHON};
use super::version;
use crate::fail::{Result, failed};
use crate::process;
use crate::workspace::Workspace;

/// Minor versions of Python 3 that torch 2.11 has wheels for.
const SUPPORTED: std::ops::RangeInclusive<u32> = 10..=14;

/// Commands that are tried in this order: the default one first, then those that some systems have
/// in addition.
const CANDIDATES: [&str; 6] =
    ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python3.14"];

/// Returns a Python that torch has wheels for.
///
/// # Errors
/// Returns an error if there is none, or only too old or too new ones.
pub fn find(workspace: &Workspace) -> Result<&'static str> {
    let mut found = Vec::new();
    for name in CANDIDATES {
        let script = "import sys; print('%d.%d' % sys.version_info[:2])";
        let answer = process::probe(workspace.command(name).args(["-c", script]));
        match answer.as_deref().and_then(version::parse_python) {
            Some((3, minor)) if SUPPORTED.contains(&minor) => return Ok(name),
            Some((major, minor)) => found.push(format!("{name} is Python {major}.{minor}")),
            None => {}
        }
    }
    let (low, high) = (SUPPORTED.start(), SUPPORTED.end());
    if found.is_empty() {
        return failed(
            "there is no python3 on this machine: install Python with pip (Debian, Ubuntu: apt-get \
             install python3 python3-pip python3-venv), or set LIBTORCH to the folder of a libtorch \
             2.11.0",
        );
    }
    failed(format!(
        "torch {TORCH} needs Python 3.{low} to 3.{high}, and {}: install one of those, or set \
         LIBTORCH to the folder of a libtorch {TORCH}",
        found.join(", ")
    ))
}

/// Returns the folder of the torch that `LIBTORCH_USE_PYTORCH` refers to: that of the first Python
/// on PATH.
pub fn torch_folder(workspace: &Workspace) -> Result<PathBuf> {
    // torch-sys uses the same Python.
    let active = std::env::var_os("VIRTUAL_ENV").is_some();
    let python = if active { "python" } else { "python3" };
    let script = "import os, torch; print(os.path.dirname(torch.__file__))";
    match process::probe(workspace.command(python).args(["-c", script])) {
        Some(folder) => Ok(folder.into()),
        None => failed(format!(
            "LIBTORCH_USE_PYTORCH is set, but {python} cannot import torch: install torch {TORCH} \
             for it, or unset the variable"
        )),
    }
}

/// Returns a Python that can import the pinned torch: that of `.venv`, or else the user's own.
pub fn with_torch(workspace: &Workspace) -> Option<OsString> {
    let script = "import torch; print(torch.__version__)";
    [workspace.path(VENV_PYTHON).into_os_string(), "python3".into()].into_iter().find(|python| {
        process::probe(workspace.command(python).args(["-c", script]))
            .is_some_and(|version| version::without_tag(&version) == TORCH)
    })
}
