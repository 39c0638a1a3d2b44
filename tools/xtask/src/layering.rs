//! Checks the rules of docs/ARCHITECTURE.md: which crates may use which, where unsafe code, YAML,
//! and printing are allowed, and that source files do not use each other in a cycle.

mod arrows;
pub(crate) mod cycles;

use std::path::Path;

use serde_json::Value;

use self::arrows::{Arrows, PROGRAM};
use crate::fail::{Result, failed};
use crate::files;
use crate::process;
use crate::workspace::Workspace;

/// External crates that only these packages may use.
const RESERVED: [(&str, &[&str]); 8] = [
    (
        "tch",
        &[
            "simdino-torch-ext",
            "simdino-model",
            "simdino-objectives",
            "simdino-eval",
            "simdino-protocols",
            "simdino-trainer",
            "simdino",
            PROGRAM,
            "benches",
        ],
    ),
    ("torch-sys", &["simdino-torch-ext"]),
    ("pyo3", &["simdino-py"]),
    ("numpy", &["simdino-py"]),
    ("serde_yaml", &[PROGRAM]),
    ("clap", &[PROGRAM]),
    ("clap_complete", &[PROGRAM]),
    ("indicatif", &[PROGRAM]),
];

/// Words that no library may contain, and why. Cargo enforces everything else, because a crate
/// cannot use what it does not depend on.
const LIBRARY_RULES: [(&str, &str); 4] = [
    ("println!", "only the program prints"),
    ("print!(", "only the program prints"),
    ("eprintln!", "only the program prints"),
    ("env::args", "only the program reads its arguments"),
];

/// Attributes that forbid unsafe code. The entry point that libFuzzer calls counts as unsafe.
const FORBIDS: [&str; 2] =
    ["#![forbid(unsafe_code)]", "#![cfg_attr(not(fuzzing), forbid(unsafe_code))]"];

/// The folder of the program.
const PROGRAM_FOLDER: &str = "crates/cli/";

/// Checks all rules.
///
/// # Errors
/// Returns an error that lists all violations.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let packages = process::json(&mut cargo)?["packages"].take();
    let packages = packages.as_array().map(Vec::as_slice).unwrap_or_default();
    let arrows = Arrows::read(workspace)?;
    let mut broken = dependencies(packages, &arrows);
    broken.extend(unsafe_code(packages)?);
    let sources = sources(workspace.root())?;
    broken.extend(sources.iter().flat_map(|(path, text)| library_words(path, text)));
    broken.extend(yaml_files(&sources));
    broken.extend(cycles::check(packages, workspace.root())?);
    if broken.is_empty() {
        return Ok(());
    }
    failed(format!("the layering in docs/ARCHITECTURE.md is violated:\n  {}", broken.join("\n  ")))
}

/// Returns the dependencies in the output of `cargo metadata` that are not allowed.
fn dependencies(packages: &[Value], arrows: &Arrows) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut broken = Vec::new();
    for package in packages {
        let name = text(&package["name"]);
        let Some(allowed) = arrows.of(&name) else {
            broken.push(format!("package {name} is not in the table of docs/ARCHITECTURE.md"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = text(&dependency["name"]);
            if dependency["path"].is_string() && !allowed.contains(&on) {
                broken.push(format!("{name} must not depend on {on}"));
            }
            let reserved = RESERVED.iter().find(|(known, _)| *known == on);
            if reserved.is_some_and(|(_, users)| !users.contains(&name.as_str())) {
                broken.push(format!("{name} must not use {on}"));
            }
        }
    }
    broken
}

/// Returns the roots of libraries and binaries without `#![forbid(unsafe_code)]`, except torch-ext.
fn unsafe_code(packages: &[Value]) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for package in packages.iter().filter(|package| package["name"] != "simdino-torch-ext") {
        for target in package["targets"].as_array().into_iter().flatten() {
            let is_crate = |kind: &Value| kind == "lib" || kind == "bin" || kind == "cdylib";
            if !target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(is_crate)) {
                continue;
            }
            let path = target["src_path"].as_str().unwrap_or_default();
            let text = files::read(Path::new(path))?;
            if !text.lines().any(|line| FORBIDS.contains(&line.trim())) {
                broken.push(format!("{path} lacks #![forbid(unsafe_code)]"));
            }
        }
    }
    Ok(broken)
}

/// Returns the text of every `src/**/*.rs` of our crates, with its path relative to `root`.
fn sources(root: &Path) -> Result<Vec<(String, String)>> {
    let name = |path: &Path| path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned();
    let files = files::ours(root)?.into_iter().map(|path| (name(&path), path));
    let is_source =
        |name: &str| name.starts_with("crates/") && name.contains("/src/") && name.ends_with(".rs");
    let sources = files.filter(|(name, _)| is_source(name));
    sources.map(|(name, path)| Ok((name, files::read(&path)?))).collect()
}

/// Returns the lines of a file except comments and the tests at its end, with their indices.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| !line.starts_with("mod tests"))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

fn library_words(path: &str, text: &str) -> Vec<String> {
    if path.starts_with(PROGRAM_FOLDER) || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    let mut broken = Vec::new();
    for (number, line) in code_lines(text) {
        for (word, why) in LIBRARY_RULES {
            if contains_word(line, word) {
                broken.push(format!("{path}:{}: {word} ({why})", number + 1));
            }
        }
    }
    broken
}

/// Returns whether `line` contains `word`, other than as the end of a longer name, such as
/// "model_eval::" or "eprintln!".
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_')
    })
}

/// Returns a problem if several files use the YAML crate. It is no longer maintained, so it must be
/// replaceable in a single file.
fn yaml_files(sources: &[(String, String)]) -> Option<String> {
    let users: Vec<&str> = sources
        .iter()
        .filter(|(_, text)| code_lines(text).any(|(_, line)| contains_word(line, "serde_yaml")))
        .map(|(path, _)| path.as_str())
        .collect();
    (users.len() > 1)
        .then(|| format!("serde_yaml is used in more than one file: {}", users.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, ours: &[&str], others: &[&str]) -> Value {
        let ours = ours.iter().map(|on| json!({"name": on, "path": "/x"}));
        let others = others.iter().map(|on| json!({"name": on}));
        json!({"name": name, "dependencies": ours.chain(others).collect::<Vec<_>>()})
    }

    #[test]
    fn arrows() {
        let table = "eval -> data model\ndata ->\nmodel -> data\ntrainer -> data model\n";
        let table = Arrows::parse(table).unwrap();
        let cases: [(&str, &[&str], &[&str], usize); 7] = [
            ("simdino-eval", &["simdino-data", "simdino-model"], &["serde", "tch"], 0),
            ("simdino-eval", &["simdino-trainer"], &[], 1),
            ("simdino-data", &["simdino-torch-ext"], &["tch"], 2),
            ("simdino-model", &["simdino-objectives"], &[], 1),
            ("simdino-model", &[], &["torch-sys"], 1),
            ("simdino-trainer", &["simdino-eval"], &["clap"], 2),
            ("unheard-of", &[], &[], 1),
        ];
        for (name, ours, others, expect) in cases {
            let broken = dependencies(&[package(name, ours, others)], &table);
            assert_eq!(broken.len(), expect, "{name} {ours:?} {others:?}: {broken:?}");
        }
    }

    #[test]
    fn words_in_libraries() {
        let cases = [
            ("crates/data/src/a.rs", "    println!(\"x\");", 1),
            ("crates/data/src/a.rs", "    // println!(\"x\");", 0),
            ("crates/data/src/a.rs", "#[cfg(test)]\nmod tests { fn f() { println!(); } }", 0),
            ("crates/data/src/a.rs", "    eprintln!(\"x\");", 1),
            ("crates/cli/src/main.rs", "eprintln!();", 0),
            ("crates/trainer/src/run.rs", "let args = env::args();", 1),
        ];
        for (path, text, expect) in cases {
            let broken = library_words(path, text);
            assert_eq!(broken.len(), expect, "{path} {text:?}: {broken:?}");
        }
    }

    #[test]
    fn yaml_in_one_file() {
        let file = |path: &str| (path.to_owned(), "use serde_yaml::Value;\n".to_owned());
        assert_eq!(yaml_files(&[file("a.rs")]), None);
        assert!(yaml_files(&[file("a.rs"), file("b.rs")]).unwrap().contains("a.rs, b.rs"));
        let comment = ("c.rs".to_owned(), "//! serde_yaml is elsewhere\n".to_owned());
        assert_eq!(yaml_files(&[file("a.rs"), comment]), None);
    }
}
