//! Setup: provides a libtorch for the build, unless the user has chosen one.
//!
//! It creates `.venv` (with torch from the package index) and the link `.libtorch`, which
//! `.cargo/config.toml` points the build to. If both are up to date, it only looks at a few files,
//! and needs no network.

mod machine;
mod pinned;
mod python;
mod venv;
mod version;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::fail::{Context, Result, failed};
use crate::workspace::{LIBTORCH_LINK, Workspace};

pub use pinned::{TORCH, VENV_PYTHON};
pub use python::{find as find_python, with_torch as python_with_torch};
pub use venv::add as add_to_venv;

/// Sets up everything that `cargo build` needs.
///
/// # Errors
/// If something is missing, returns one sentence that says what to do.
pub fn run(workspace: &Workspace) -> Result<()> {
    machine::check_compiler(workspace)?;
    let _lock = lock(workspace)?;
    if let Some(dir) = given(workspace)? {
        println!("set-up: using the libtorch {TORCH} in {}", dir.display());
        return point_link(workspace, &dir);
    }
    let link = workspace.path(LIBTORCH_LINK);
    let leads = link.canonicalize().ok();
    let venv = workspace.path(pinned::VENV);
    let chosen = leads.filter(|dir| !dir.starts_with(&venv) && check(dir, "").is_ok());
    if chosen.is_some() {
        return Ok(()); // the link already leads to a libtorch that the user chose
    }
    let torch = venv::ensure(workspace)?;
    point_link(workspace, &torch)
}

/// Returns the libtorch that the user's environment specifies, after checking it.
fn given(workspace: &Workspace) -> Result<Option<PathBuf>> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let dir = python::torch_folder(workspace)?;
        check(&dir, "LIBTORCH_USE_PYTORCH is set, but ")?;
        return Ok(Some(dir));
    }
    let Some(dir) = workspace.user_libtorch() else { return Ok(None) };
    if !dir.is_absolute() {
        return failed(format!(
            "LIBTORCH is {}, which is not an absolute path: set it to one, or unset it to have \
             libtorch {TORCH} installed",
            dir.display()
        ));
    }
    check(dir, "LIBTORCH is set, but ")?;
    Ok(Some(dir.to_owned()))
}

/// Checks that `dir` contains the right libtorch. `why` starts the error message if it does not.
fn check(dir: &Path, why: &str) -> Result<()> {
    let what_to_do = format!(
        "set it to the folder of a libtorch {TORCH}, or unset it to have that version \
             installed"
    );
    if !dir.join("lib/libtorch_cpu.so").exists() {
        return failed(format!("{why}{} has no lib/libtorch_cpu.so: {what_to_do}", dir.display()));
    }
    match version::of_libtorch(dir) {
        Some(version) if version == TORCH => Ok(()),
        Some(version) => {
            failed(format!("{why}{} is libtorch {version}: {what_to_do}", dir.display()))
        }
        None => failed(format!("{why}{} has no version file: {what_to_do}", dir.display())),
    }
}

/// Makes `.libtorch` point to `dir`. The link is relative if `dir` is below the root, so that the
/// repository can be moved.
fn point_link(workspace: &Workspace, dir: &Path) -> Result<()> {
    let link = workspace.path(LIBTORCH_LINK);
    if same_folder(&link, dir) {
        return Ok(());
    }
    let to = dir.strip_prefix(workspace.root()).unwrap_or(dir);
    if link.symlink_metadata().is_ok_and(|kind| !kind.is_symlink()) {
        return failed(format!(
            "{} is a file or folder, but set-up needs a link to {} there: move it away",
            link.display(),
            to.display()
        ));
    }
    let fresh = workspace.path(format!("{LIBTORCH_LINK}.new"));
    let _ = fs::remove_file(&fresh); // may be left by an interrupted run
    std::os::unix::fs::symlink(to, &fresh)
        .and_then(|()| fs::rename(&fresh, &link))
        .context(|| format!("cannot create the link {}", link.display()))
}

fn same_folder(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}

/// Takes a lock that makes a second setup in the same folder wait for this one.
fn lock(workspace: &Workspace) -> Result<File> {
    let path = workspace.path(".cache/setup.lock");
    let open = || {
        fs::create_dir_all(workspace.path(".cache"))?;
        let file = File::create(&path)?;
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    open().context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_libtorch_is_refused_with_its_version() {
        let dir = std::env::temp_dir().join(format!("xtask-libtorch-{}", std::process::id()));
        fs::create_dir_all(dir.join("lib")).unwrap();
        let missing = check(&dir, "").unwrap_err().to_string();
        assert!(missing.contains("libtorch_cpu.so"), "{missing}");
        fs::write(dir.join("lib/libtorch_cpu.so"), "").unwrap();
        let silent = check(&dir, "").unwrap_err().to_string();
        assert!(silent.contains("has no version file"), "{silent}");
        fs::write(dir.join("build-version"), "2.9.1+cpu\n").unwrap();
        let old = check(&dir, "").unwrap_err().to_string();
        assert!(old.contains("is libtorch 2.9.1"), "{old}");
        fs::write(dir.join("build-version"), "2.11.0+cpu\n").unwrap();
        assert!(check(&dir, "").is_ok());
        fs::remove_dir_all(&dir).unwrap();
    }
}
