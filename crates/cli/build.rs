//! Tells the program which commit it is built from: `SIMDINO_COMMIT`, and `SIMDINO_DIRTY` where the
//! sources differ from it. Without git, or outside of its repository, both are absent.
//!
//! Runs again when HEAD moves, or when a source of the workspace changes.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the program is made of, relative to the root of the workspace.
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
        // Cargo takes a missing file for one that changes all the time.
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

/// Sources of all crates, without their tests.
fn sources(root: &Path) -> Vec<PathBuf> {
    let crates = std::fs::read_dir(root.join("crates")).into_iter().flatten().flatten();
    let parts = |dir: PathBuf| ["src", "cpp", "build.rs", "Cargo.toml"].map(|part| dir.join(part));
    let mut sources: Vec<_> = crates.flat_map(|entry| parts(entry.path())).collect();
    sources.extend(SOURCES[1..].iter().map(|file| root.join(file)));
    sources
}

/// git in a folder.
struct Git<'a>(&'a Path);

impl Git<'_> {
    /// What a command prints; none where it fails or prints nothing.
    fn says(&self, words: &[&str]) -> Option<String> {
        let mut git = Command::new("git");
        // Looking must not write the index.
        let output =
            git.arg("--no-optional-locks").args(words).current_dir(self.0).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }

    /// Whether the folder is the top of a repository, not a part of someone else's.
    fn owns_root(&self) -> bool {
        let top = self.says(&["rev-parse", "--show-toplevel"]).map(PathBuf::from);
        top.is_some_and(|top| top.canonicalize().ok() == self.0.canonicalize().ok())
    }

    /// Files that change when HEAD does; in a worktree, HEAD is its own and branches are shared.
    fn where_head_is(&self) -> Vec<PathBuf> {
        let path = |name: &str| {
            let path = self.says(&["rev-parse", "--git-path", name])?;
            Some(self.0.join(path)) // absolute, or relative to the folder
        };
        let mut files: Vec<PathBuf> = path("HEAD").into_iter().chain(path("reftable")).collect();
        let Some(branch) = self.says(&["symbolic-ref", "--quiet", "HEAD"]) else { return files };
        match path(&branch) {
            Some(loose) if loose.is_file() => files.push(loose),
            // Packed: the next commit makes a file of its own, in the first of these folders that is there.
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
