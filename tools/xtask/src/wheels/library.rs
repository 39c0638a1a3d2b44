//! The wheel `simdino`, which maturin builds.

use std::path::{Path, PathBuf};

use super::found::wheel_in;
use crate::dist::{archive, licenses};
use crate::fail::{Result, failed};
use crate::files::{make_folder, write};
use crate::workspace::Workspace;
use crate::{process, setup};

/// The Python environment that has only maturin.
const ENVIRONMENT: &str = ".cache/maturin";
const MATURIN: &str = "maturin==1.16.0";
/// A C compiler and linker that knows the symbols of older versions of glibc.
const ZIG: &str = "ziglang==0.17.1";
/// The glibc of distributions since 2019.
const OLD_GLIBC: &str = "manylinux_2_28";
const MANIFEST: &str = "crates/py/Cargo.toml";
/// Beside the modules, so that it travels with them.
const LICENSES: &str = "crates/py/python/simdino/THIRD-PARTY.txt";

/// maturin, installed where it is missing.
///
/// # Errors
/// There is no Python with venv, or pip cannot reach its index.
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

/// What the wheel is linked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glibc {
    /// That of this machine.
    Here,
    /// 2.28, by zig, which is installed where it is missing.
    Old,
}

/// Builds the wheel in `out`.
///
/// # Errors
/// maturin or zig is missing and cannot be installed, or the build fails.
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
