//! Tests that all builds share their crates: a crate with other features would be built again.

#![allow(clippy::panic)]

use std::collections::BTreeSet;
use std::env;
use std::path::Path;
use std::process::Command;

/// Returns each crate of a build with its features.
fn crates(arguments: &[&str]) -> BTreeSet<String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
    cargo.args(["tree", "--offline", "--prefix=none", "--no-dedupe", "--format={p} [{f}]"]);
    let output = cargo.args(arguments).output().unwrap_or_else(|error| panic!("{error}"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// If this fails, enable the missing features for the package in question, as crates/cli/Cargo.toml
/// does.
#[test]
fn the_program_and_the_tools_are_made_of_what_the_tests_are_made_of() {
    let all = crates(&["--workspace"]);
    for package in ["trainer", "xtask"] {
        let own = crates(&["--package", package, "--edges=normal,build"]);
        assert!(own.len() > 5, "{own:?}");
        let other: Vec<&String> = own.difference(&all).collect();
        assert!(other.is_empty(), "`cargo build -p {package}` would build again: {other:#?}");
    }
}
