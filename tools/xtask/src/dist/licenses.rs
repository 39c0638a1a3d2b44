//! The licenses of the crates that are linked into the program, whose texts must accompany it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::fail::{Context, Result, failed};
use crate::process;
use crate::workspace::Workspace;

const HEAD: &str = "\
Third-party code that is linked into simdino, and its licenses. The Rust standard library is also under MIT or
Apache-2.0.
";
/// A paragraph for the program, which the library does not need.
const OF_TORCH: &str = "\
The libraries of torch are not included; code compiled from PyTorch's headers is, under the license that each torch
has in its folder torch-VERSION.dist-info/licenses.
";
/// Prefixes of the names of license files, in capitals. "LICEN" covers the British spelling, too.
const FILES: [&str; 5] = ["LICEN", "COPYING", "COPYRIGHT", "NOTICE", "UNLICENSE"];

/// Returns the text of THIRD-PARTY.txt for the binary of a package.
///
/// # Errors
/// Returns an error if cargo fails, a license cannot be read, or a crate names no license.
pub fn third_party(workspace: &Workspace, target: &str, package: &str) -> Result<String> {
    let linked = linked(workspace, package)?;
    // Only for this platform, because cargo would download the crates that others need.
    let args = ["metadata", "--format-version", "1", "--locked", "--filter-platform", target];
    let mut metadata = workspace.cargo(&args);
    let packages = process::json(&mut metadata)?["packages"].take();
    let mut list = String::new();
    // Each text once, with the names of all crates that it belongs to.
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.as_array().into_iter().flatten().filter(|p| !p["source"].is_null()) {
        let text = |key: &str| package[key].as_str().unwrap_or_default();
        let name = format!("{} {}", text("name"), text("version"));
        if !linked.contains(&name) {
            continue;
        }
        let folder = Path::new(text("manifest_path")).with_file_name("");
        let files = license_files(&folder)?;
        let license = declared(package, &name)?;
        let note = if files.is_empty() { ", whose text is not in the package" } else { "" };
        let _ = writeln!(list, "{name}: {license}{note}");
        for file in files {
            let bytes = fs::read(&file).context(|| format!("cannot read {}", file.display()))?;
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n").trim().to_owned();
            texts.entry(text).or_default().push(name.clone());
        }
    }
    if texts.is_empty() {
        return failed("cargo lists no crate that is linked into simdino");
    }
    let has_torch = list.lines().any(|line| line.starts_with("torch-sys "));
    let of_torch = if has_torch { OF_TORCH } else { "" };
    let mut whole = format!("{HEAD}{of_torch}\n{list}");
    for (text, names) in texts {
        let _ = write!(whole, "\n{:=<78}\n{}\n{:-<78}\n{text}\n", "", names.join(", "), "");
    }
    Ok(whole)
}

/// Returns the name and version of each crate that is linked into a package's binary. Procedural
/// macros run only in the compiler.
fn linked(workspace: &Workspace, package: &str) -> Result<BTreeSet<String>> {
    let edges = ["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"];
    let mut cargo = workspace.cargo(&["tree", "--locked", "--package", package]);
    let mut found = BTreeSet::new();
    process::each_line(cargo.args(edges), |line| {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            found.insert(format!("{name} {}", version.trim_start_matches('v')));
        }
    })?;
    Ok(found)
}

fn declared<'a>(package: &'a Value, name: &str) -> Result<&'a str> {
    match (package["license"].as_str(), package["license_file"].as_str()) {
        (Some(license), _) | (None, Some(license)) => Ok(license),
        (None, None) => failed(format!("{name} names no license")),
    }
}

/// Returns the license files of a crate, and those of C code in a folder of it.
fn license_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let is_license = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        path.is_file() && FILES.iter().any(|start| name.starts_with(start))
    };
    let inside = entries(folder)?;
    let mut found: Vec<_> = inside.iter().filter(|path| is_license(path)).cloned().collect();
    for folder in inside.iter().filter(|path| path.is_dir()) {
        found.extend(entries(folder)?.into_iter().filter(is_license));
    }
    Ok(found)
}

/// Returns the entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).context(|| format!("cannot read {}", folder.display()))?;
    let mut found: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.sort();
    Ok(found)
}
