//! What has to agree before a release: see RELEASE.md.

#![allow(clippy::panic)]

use std::fs;
use std::path::Path;

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The rest of the only line that starts so.
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
    assert_eq!(ours.len(), 13, "{ours:#?}");
    let version = format!("version = \"{VERSION}\"");
    for line in ours {
        assert!(line.contains(&version), "{line}");
    }
}
