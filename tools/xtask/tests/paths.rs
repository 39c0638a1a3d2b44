//! Tests that the files and folders that the documents mention exist.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::fs;
use std::path::{Path, PathBuf};

/// Starts of paths in the repository.
const FOLDERS: [&str; 8] =
    ["crates/", "tools/", "fuzz/", "configs/", "docs/", "benches/", ".ci/", ".cargo/"];

fn documents(root: &Path) -> Vec<PathBuf> {
    let in_folder = |folder: &str| -> Vec<PathBuf> {
        fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let readmes = in_folder("crates").into_iter().map(|krate| krate.join("README.md"));
    let all = in_folder("").into_iter().chain(in_folder("docs")).chain(readmes);
    all.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect()
}

/// Returns whether a text is a path without placeholders such as `NAME.rs` or `crates/*/src`.
fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    FOLDERS.iter().any(|folder| text.starts_with(folder))
        && text.chars().all(plain)
        && !text.contains("NAME")
}

#[test]
fn paths_in_documents_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (mut checked, mut missing) = (0, Vec::new());
    for document in documents(&root) {
        let Ok(text) = fs::read_to_string(&document) else { continue };
        for path in text.split('`').skip(1).step_by(2).filter(|path| is_path(path)) {
            checked += 1;
            if !root.join(path).exists() {
                missing.push(format!("{}: {path}", document.display()));
            }
        }
    }
    assert!(checked > 60, "only {checked} paths were found");
    assert!(missing.is_empty(), "{missing:#?}");
}
