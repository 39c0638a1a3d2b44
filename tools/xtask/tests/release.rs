//! Tests that everything agrees that must agree before a release; see RELEASE.md.

#![allow(clippy::panic)]

use std::fs;
use std::path::Path;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the rest of the only line that starts with `start`.
fn after<'a>(text: &'a str, start: &str) -> &'a str {
    let found: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix(start)).collect();
    assert_eq!(found.len(), 1, "lines that start with {start:?}: {found:?}");
    found[0].trim().trim_matches('"')
}

#[test]
fn citation_and_changelog_speak_of_this_version() {
    let citation = read("CITATION.cff");
    assert_eq!(after(&citation, "version:"), VERSION);
    let date = after(&citation, "date-released:");
    let changelog = read("CHANGELOG.md");
    let sections: Vec<&str> =
        changelog.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let released = format!("{VERSION} ({date})");
    assert!(sections.starts_with(&["Unreleased", &released]), "{released}: {sections:?}");
}

#[test]
fn crates_ask_for_this_version_of_each_other() {
    let manifest = read("Cargo.toml");
    let ours: Vec<&str> =
        manifest.lines().filter(|line| line.contains("path = \"crates/")).collect();
    let members = manifest.lines().filter(|line| line.starts_with("    \"crates/")).count();
    // No crate depends on the program or the Python package.
    assert_eq!(ours.len(), members - 2, "{ours:#?}");
    let version = format!("version = \"{VERSION}\"");
    for line in ours {
        assert!(line.contains(&version), "{line}");
    }
}

/// Returns the `cargo xtask WORDS` commands that a document mentions.
fn told(text: &str) -> Vec<&str> {
    let said = text.split("cargo xtask ").skip(1);
    let words =
        said.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next());
    words.filter(|word| !word.is_empty()).collect()
}

#[test]
fn every_task_that_documents_name_is_there() {
    let xtask =
        std::process::Command::new(env!("CARGO_BIN_EXE_xtask")).arg("--help").output().unwrap();
    let help = String::from_utf8(xtask.stdout).unwrap();
    let there = told(&help);
    let mut named = 0;
    for file in ["README.md", "RELEASE.md", "CONTRIBUTING.md", "docs/QUICKSTART.md", "Cargo.toml"] {
        for word in told(&read(file)) {
            assert!(there.contains(&word), "{file}: cargo xtask {word}");
            named += 1;
        }
    }
    assert!(named > 20, "{named}");
}

#[test]
fn the_archive_is_called_as_documents_say() {
    // The platform of the machines on which releases are built.
    let of_readme = "simdino-VERSION-x86_64-unknown-linux-gnu.tar.gz";
    assert!(read("README.md").contains(of_readme));
    let format = "format!(\"simdino-{VERSION}-{target}\")";
    assert!(read("tools/xtask/src/dist/archive.rs").contains(format));
    // The recipe that the installation instructions start with.
    assert!(read("tools/xtask/src/dist/INSTALL.txt").contains("train FOLDER"));
    read("configs/quickstart.yaml");
}
