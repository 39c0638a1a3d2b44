//! The repository, and how programs are started in it.
//!
//! `cargo xtask` itself runs under cargo, which sets environment variables for it. They are removed
//! for the programs started here, so that a nested cargo sees the same environment as one started
//! by hand, and does not rebuild.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::fail::{Context, Result};

/// The link that `.cargo/config.toml` sets as `LIBTORCH`.
pub const LIBTORCH_LINK: &str = ".libtorch";

/// The repository and the cargo that runs it.
#[derive(Debug)]
pub struct Workspace {
    root: PathBuf,
    cargo: OsString,
    user_libtorch: Option<PathBuf>,
}

impl Workspace {
    /// Returns the repository that this program was built from.
    ///
    /// # Errors
    /// Returns an error if its folder does not exist.
    pub fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.join("../..");
        let root = root.canonicalize().context(|| format!("cannot open {}", root.display()))?;
        let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let user_libtorch = env::var_os("LIBTORCH")
            .map(PathBuf::from)
            .filter(|path| !path.as_os_str().is_empty() && !is_our_link(path, &root));
        Ok(Self { root, cargo, user_libtorch })
    }

    /// Returns the absolute path of the repository.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the absolute form of a path that is relative to the root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// Returns the `LIBTORCH` that the user has set, as opposed to that of `.cargo/config.toml`.
    pub fn user_libtorch(&self) -> Option<&Path> {
        self.user_libtorch.as_deref()
    }

    /// Returns a command that runs in the root, without the variables that cargo has set for this
    /// program.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root);
        for (name, _) in env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("CARGO_PKG_") || name_text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        if self.user_libtorch.is_none() {
            command.env_remove("LIBTORCH");
        }
        command
    }

    /// Same as [`Workspace::command`], for a program that is linked to libtorch or a cargo that
    /// runs one. Binaries below `target/` find the library by their rpath; for others, the library
    /// path is set.
    pub fn torch_command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.command(program);
        let elsewhere = env::var_os("CARGO_TARGET_DIR")
            .is_some_and(|target| self.path(target) != self.path("target"));
        if elsewhere {
            let mut folders = vec![self.path(LIBTORCH_LINK).join("lib")];
            folders.extend(
                env::var_os("LD_LIBRARY_PATH").iter().flat_map(|paths| env::split_paths(paths)),
            );
            if let Ok(joined) = env::join_paths(folders) {
                command.env("LD_LIBRARY_PATH", joined);
            }
        }
        command
    }

    /// Returns a command of the cargo that runs this program.
    pub fn cargo(&self, args: &[&str]) -> Command {
        let mut command = self.torch_command(&self.cargo);
        command.args(args);
        command
    }
}

/// Returns whether `path` is `.libtorch` in the root, whose path may be written differently.
fn is_our_link(path: &Path, root: &Path) -> bool {
    path.file_name() == Some(OsStr::new(LIBTORCH_LINK))
        && path.parent().and_then(|parent| parent.canonicalize().ok()).as_deref() == Some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_own_libtorch_is_told_from_the_users() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
        assert!(is_our_link(&root.join(".libtorch"), &root));
        assert!(is_our_link(&root.join("tools/../.libtorch"), &root));
        assert!(!is_our_link(Path::new("/opt/libtorch"), &root));
        assert!(!is_our_link(&root.join("tools/.libtorch"), &root));
    }
}
