//! Finds cycles of source files that use each other, directly or through other files. A use is
//! attributed to the file that contains the definition, regardless of re-exports. `mod`
//! declarations, re-exports, tests, and comments do not count as uses.
//!
//! Because types are not inferred, a method call is missed if the type of its receiver is not
//! written beside the receiver's name, and the method's `impl` block is in another file than the
//! type. Paths in strings of attributes are not read.

pub(crate) mod attributes;
mod members;
mod modules;
mod names;
mod scopes;
#[cfg(test)]
mod tests;
mod uses;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::fail::{Context, Result};
use modules::{Crate, FileId, Read};
use scopes::{Names, Uses};

/// Maximum number of names shown for an edge of a cycle.
const SHOWN: usize = 4;

/// Returns a sentence for each cycle in the libraries and programs of these packages.
///
/// # Errors
/// Returns an error if a source file cannot be read or parsed.
pub fn check(packages: &[Value], root: &Path) -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for target in packages.iter().flat_map(|package| package["targets"].as_array()).flatten() {
        let is_crate = |kind: &Value| kind == "lib" || kind == "bin";
        if target["kind"].as_array().is_some_and(|kinds| kinds.iter().any(is_crate)) {
            let path = Path::new(target["src_path"].as_str().unwrap_or_default());
            broken.extend(of_crate(path, root, &read)?);
        }
    }
    Ok(broken)
}

fn read(path: &Path) -> Result<Option<String>> {
    if !path.is_file() {
        return Ok(None);
    }
    fs::read_to_string(path).map(Some).context(|| format!("cannot read {}", path.display()))
}

/// Returns the cycles of the crate with this root file, with paths relative to `root`.
fn of_crate(path: &Path, root: &Path, read: Read<'_>) -> Result<Vec<String>> {
    let (mut krate, parsed) = modules::load(path, read)?;
    let uses = uses::find(&mut krate, &parsed);
    let circles = circles(krate.files.len(), &uses);
    Ok(circles.iter().map(|circle| describe(circle, &krate, &uses, root)).collect())
}

/// Returns the sets of files in which each file uses every other one, directly or through others.
fn circles(files: usize, uses: &Uses) -> Vec<BTreeSet<FileId>> {
    let reached: Vec<BTreeSet<FileId>> = (0..files).map(|file| reach(file, uses)).collect();
    let mut circles: Vec<BTreeSet<FileId>> = (0..files)
        .filter(|file| reached[*file].contains(file))
        .map(|file| {
            reached[file].iter().copied().filter(|other| reached[*other].contains(&file)).collect()
        })
        .collect();
    circles.sort();
    circles.dedup();
    circles
}

/// Returns all files that `file` uses, directly or through others.
fn reach(file: FileId, uses: &Uses) -> BTreeSet<FileId> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![file];
    while let Some(from) = waiting.pop() {
        for (_, to) in uses.keys().filter(|(user, _)| *user == from) {
            if reached.insert(*to) {
                waiting.push(*to);
            }
        }
    }
    reached
}

fn describe(circle: &BTreeSet<FileId>, krate: &Crate, uses: &Uses, root: &Path) -> String {
    let name = |file: FileId| {
        let path = &krate.files[file];
        path.strip_prefix(root).unwrap_or(path).display().to_string()
    };
    let inside = uses.iter().filter(|((from, to), _)| circle.contains(from) && circle.contains(to));
    let edges: Vec<String> = inside
        .map(|((from, to), names)| {
            let first = names.values().min().copied().unwrap_or_default();
            format!("{}:{first} uses {} of {}", name(*from), list(names), name(*to))
        })
        .collect();
    format!(
        "{} files depend on each other in a cycle; move what closes it to a separate file:\n      \
         {}",
        circle.len(),
        edges.join("\n      ")
    )
}

/// Lists names in the order of their lines, up to [`SHOWN`].
fn list(names: &Names) -> String {
    let mut sorted: Vec<(usize, &str)> =
        names.iter().map(|(name, line)| (*line, name.as_str())).collect();
    sorted.sort_unstable();
    let shown: Vec<&str> = sorted.iter().take(SHOWN).map(|(_, name)| *name).collect();
    match sorted.len().checked_sub(SHOWN) {
        Some(more @ 1..) => format!("{} and {more} more", shown.join(", ")),
        _ => shown.join(", "),
    }
}
