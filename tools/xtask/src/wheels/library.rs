//! Builds the wheel `simdino` with maturin.

use std::path::{Path, PathBuf};

use super::found::wheel_in;
use crate::dist::{archive, licenses};
use crate::fail::{Result, failed};
use crate::files::{make_folder, write};
use crate::workspace::Workspace;
use crate::{process, setup};

/// The Python environment for maturin and zig.
const ENVIRONMENT: &str = ".cache/maturin";
const MATURIN: &str = "maturin==1.16.0";
/// A C compiler and linker that can target older versions of glibc.
const ZIG: &str = "ziglang==0.17.1";
/// Platform tag for glibc 2.28, which distributions have had since 2019.
const OLD_GLIBC: &str = "manylinux_2_28";
const MANIFEST: &str = "crates/py/Cargo.toml";
/// The license texts, beside the modules, so that they are part of the wheel.
const LICENSES: &str = "crates/py/python/simdino/THIRD-PARTY.txt";

/// Returns the path of maturin, which is installed if it is missing.
///
/// # Errors
/// Returns an error if there is no Python with venv, or pip cannot reach its index.
pub fn maturin(workspace: &Workspace) -> Result<PathBuf> {
    let folder = workspace.path(ENVIRONMENT);
    let program = folder.join("bin/maturin");
    let version = || process::probe(workspace.command(&program).arg("--version"));
    let wanted = MATURIN.replace("==", " ");
    if version().as_deref() == Some(&wanted) {
        return Ok(program);
    }
    let python = setup::find_python(workspace)?;
    process::run(workspace.command(python).args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = workspace.command(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", MATURIN]);
    process::run(&mut pip)?;
    match version() {
        Some(_) => Ok(program),
        None => failed(format!("{} does not run", program.display())),
    }
}

/// The version of glibc that the wheel is linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glibc {
    /// The version of this machine.
    Here,
    /// Version 2.28, with zig, which is installed if it is missing.
    Old,
}

/// Builds the wheel in `out`.
///
/// # Errors
/// Returns an error if maturin or zig is missing and cannot be installed, or the build fails.
pub fn make(workspace: &Workspace, out: &Path, glibc: Glibc) -> Result<PathBuf> {
    let maturin = maturin(workspace)?;
    let python = workspace.path(ENVIRONMENT).join("bin/python");
    let target = archive::target(workspace)?;
    let text = licenses::third_party(workspace, &target, "simdino-py")?;
    write(&workspace.path(LICENSES), &text)?;
    make_folder(out)?;
    let mut build = workspace.command(maturin);
    build.args(["build", "--quiet", "--manifest-path", MANIFEST, "--out"]).arg(out);
    build.arg("--interpreter").arg(&python);
    if glibc == Glibc::Old {
        let mut pip = workspace.command(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", ZIG]);
        process::run(&mut pip)?;
        build.args(["--zig", "--compatibility", OLD_GLIBC]);
        build.env("CARGO_ZIGBUILD_PYTHON_PATH", &python);
    }
    process::run(&mut build)?;
    wheel_in(out, "simdino-")
}
