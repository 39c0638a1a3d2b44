//! Sets the environment variables `SIMDINO_COMMIT`, the commit that the program is built from, and
//! `SIMDINO_DIRTY`, if the sources differ from that commit. Both are unset if git is missing or the
//! workspace is not the top level of a repository.
//!
//! The script reruns when HEAD moves or a source of the workspace changes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The sources of the program, relative to the root of the workspace.
const SOURCES: [&str; 5] = ["crates", "Cargo.toml", "Cargo.lock", ".cargo", "configs"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let package = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let Some(root) = package.ancestors().find(|dir| dir.join("Cargo.lock").is_file()) else {
        return;
    };
    let git = Git(root);
    if !git.owns_root() {
        return;
    }
    for path in git.where_head_is().iter().chain(&sources(root)) {
        // Cargo would rerun the script on every build for a missing file.
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
    let Some(commit) = git.says(&["rev-parse", "HEAD"]) else { return };
    println!("cargo:rustc-env=SIMDINO_COMMIT={commit}");
    let changes = ["status", "--porcelain", "--untracked-files=no", "--"];
    if git.says(&[&changes[..], &SOURCES].concat()).is_some() {
        println!("cargo:rustc-env=SIMDINO_DIRTY=1");
    }
}

/// Returns the source paths of all crates, without their tests, and those of the workspace.
fn sources(root: &Path) -> Vec<PathBuf> {
    let crates = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let parts = |dir: PathBuf| ["src", "cpp", "build.rs", "Cargo.toml"].map(|part| dir.join(part));
    let mut sources: Vec<_> = crates.flat_map(|entry| parts(entry.path())).collect();
    sources.extend(SOURCES[1..].iter().map(|file| root.join(file)));
    sources
}

/// Runs git in a folder.
struct Git<'a>(&'a Path);

impl Git<'_> {
    /// Returns the output of a git command; `None` if it fails or prints nothing.
    fn says(&self, words: &[&str]) -> Option<String> {
        let mut git = Command::new("git");
        // `git status` would otherwise refresh the index file.
        let output =
            git.arg("--no-optional-locks").args(words).current_dir(self.0).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }

    /// Returns whether the folder is the top level of a repository, rather than nested in another.
    fn owns_root(&self) -> bool {
        let top = self.says(&["rev-parse", "--show-toplevel"]).map(PathBuf::from);
        top.is_some_and(|top| top.canonicalize().ok() == self.0.canonicalize().ok())
    }

    /// Returns the files that change when HEAD moves. In a worktree, HEAD is separate and branches
    /// are shared, so git resolves the paths.
    fn where_head_is(&self) -> Vec<PathBuf> {
        let path = |name: &str| {
            let path = self.says(&["rev-parse", "--git-path", name])?;
            Some(self.0.join(path)) // absolute, or relative to the folder
        };
        let mut files: Vec<PathBuf> = path("HEAD").into_iter().chain(path("reftable")).collect();
        let Some(branch) = self.says(&["symbolic-ref", "--quiet", "HEAD"]) else { return files };
        match path(&branch) {
            Some(loose) if loose.is_file() => files.push(loose),
            // The branch is packed: the next commit creates its loose file, in the nearest parent
            // folder that exists.
            Some(packed) => {
                files.extend(path("packed-refs"));
                files
                    .extend(packed.ancestors().skip(1).find(|dir| dir.is_dir()).map(PathBuf::from));
            }
            None => {}
        }
        files
    }
}
