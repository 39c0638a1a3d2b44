//! Tests that the keys, metrics, and types in docs/GLOSSARY.md exist.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns the rows of the tables: term, code, key, and metric.
fn rows(glossary: &str) -> Vec<[String; 4]> {
    let cells = |line: &str| -> Option<[String; 4]> {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        line.split(" | ").map(str::to_owned).collect::<Vec<_>>().try_into().ok()
    };
    let rows = glossary.lines().filter_map(cells).filter(|[term, ..]| term != "term");
    rows.collect()
}

/// Returns the texts between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Returns every `section.key` of docs/CONFIG.md, and every section.
fn config_keys() -> BTreeSet<String> {
    let (mut keys, mut section) = (BTreeSet::new(), String::new());
    for line in read(&root().join("docs/CONFIG.md")).lines() {
        if let Some(name) = line.strip_prefix("## `") {
            section = name.trim_end_matches('`').to_owned();
            keys.insert(section.clone());
        } else if let Some((key, _)) =
            line.strip_prefix("| `").and_then(|rest| rest.split_once('`'))
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// Appends the text of all sources in a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            *text += &read(&path);
        }
    }
}

#[test]
fn names_exist() {
    let rows = rows(&read(&root().join("docs/GLOSSARY.md")));
    assert!(rows.len() >= 40, "{} rows", rows.len());
    let keys = config_keys();
    assert!(keys.contains("train.batch_size") && keys.contains("method"), "{keys:?}");
    let mut code = String::new();
    sources(&root().join("crates"), &mut code);

    let mut unknown = Vec::new();
    for [term, types, config, metric] in &rows {
        for key in quoted(config) {
            let name = key.split(':').next().unwrap().trim_end_matches(".*");
            if !keys.contains(name) {
                unknown.push(format!("{term}: config key {key}"));
            }
        }
        for name in quoted(metric).filter(|name| name.contains('/')) {
            if !code.contains(&format!("\"{name}\"")) {
                unknown.push(format!("{term}: metric {name}"));
            }
        }
        for path in quoted(types) {
            let name = path.rsplit("::").next().unwrap();
            let kinds = ["struct ", "enum ", "trait ", "fn ", "mod ", "const "];
            let item = kinds.iter().any(|kind| has_word(&code, &format!("pub {kind}{name}")));
            let field = code.contains(&format!("pub {name}:"));
            if !item && !field {
                unknown.push(format!("{term}: {path}"));
            }
        }
    }
    assert!(unknown.is_empty(), "docs/GLOSSARY.md names what is not there:\n{unknown:#?}");
}

/// Returns whether `start` occurs, other than as the start of a longer name.
fn has_word(text: &str, start: &str) -> bool {
    text.match_indices(start).any(|(at, _)| {
        let next = text[at + start.len()..].chars().next();
        next.is_some_and(|next| !next.is_alphanumeric() && next != '_')
    })
}
