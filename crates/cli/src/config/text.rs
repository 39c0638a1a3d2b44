//! Finds the text of a config: a file, or a recipe embedded in the program.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use simdino::recipes;

use crate::failure::{Failure, Result};

/// Explains what a path other than a config may name.
const IMAGES: &str = "images are given as a folder, a list (.txt, .csv, .tsv, .jsonl), or \
                      shards (.tar, .parquet)";

/// The unparsed text of a config.
#[derive(Debug)]
pub(super) struct ConfigText {
    /// The YAML text.
    pub text: String,
    /// Name of the config in messages.
    pub shown: String,
    /// Name of the run if the config does not give one.
    pub stem: String,
    /// A hint if the user may have meant something else.
    pub note: Option<String>,
}

/// Reads the file `config`. If there is no such file and `config` is a name without a folder or an
/// extension, returns the recipe with that name.
///
/// # Errors
/// Returns an error if there is neither, or if the file cannot be read. For an unknown name, the
/// error suggests similar ones.
pub(super) fn of(config: &Path) -> Result<ConfigText> {
    let error = match fs::read_to_string(config) {
        Ok(text) => {
            let stem = config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            return Ok(ConfigText { text, shown: config.display().to_string(), stem, note: None });
        }
        Err(error) => error,
    };
    let name = plain_name(config).filter(|_| is_no_file(config));
    match name.map(|name| (name, recipes::text(name))) {
        Some((name, Some(text))) => Ok(recipe(name, text)),
        Some((name, None)) if !config.is_dir() => Err(Failure::usage(neither(name))),
        _ => Err(unreadable(config, &error)),
    }
}

/// Returns whether `config` is not meant as a file: it does not exist or is a folder. A dangling
/// symbolic link counts as a file.
fn is_no_file(config: &Path) -> bool {
    match fs::symlink_metadata(config) {
        Ok(_) => config.is_dir(),
        Err(error) => error.kind() == ErrorKind::NotFound,
    }
}

/// Returns the sentence that there is no recipe `name`, and what to do.
pub fn no_recipe(name: &str) -> String {
    format!("no recipe named '{name}'{}", advice(name))
}

fn neither(name: &str) -> String {
    match beside(name) {
        Some(file) => format!("no config file named '{name}': did you mean {file}?"),
        None => {
            format!("no folder, config file, or recipe named '{name}'{}", advice(name))
        }
    }
}

/// Returns the end of a sentence about an unknown recipe: similar names, and how to list all.
fn advice(name: &str) -> String {
    let similar = recipes::similar(name);
    if similar.is_empty() {
        return ": `simdino config recipes` lists the recipes".to_owned();
    }
    let similar = similar.join(" or ");
    format!(": did you mean {similar}? `simdino config recipes` lists all")
}

fn recipe(name: &str, text: &str) -> ConfigText {
    let note = beside(name).map(|file| {
        format!("using the built-in recipe '{name}': the file {file} in this folder is not read")
    });
    ConfigText { text: text.to_owned(), shown: format!("recipe {name}"), stem: name.into(), note }
}

/// Returns the name if it can be that of a recipe: without a folder or an extension.
fn plain_name(config: &Path) -> Option<&str> {
    config.to_str().filter(|name| !name.contains(['/', '\\', '.']))
}

/// Returns the config file `name.yaml` or `name.yml` in the current folder, if there is one.
fn beside(name: &str) -> Option<String> {
    ["yaml", "yml"]
        .map(|extension| format!("{name}.{extension}"))
        .into_iter()
        .find(|file| Path::new(file).is_file())
}

fn unreadable(config: &Path, error: &std::io::Error) -> Failure {
    let path = config.display();
    let stem = config.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let is_yaml =
        config.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    Failure::usage(match error.kind() {
        ErrorKind::NotFound if recipes::text(stem).is_some() => {
            format!("config file {path} does not exist: use '{stem}' for the built-in recipe")
        }
        ErrorKind::NotFound if path.to_string().contains('=') => {
            format!("{path}: a folder, config file, or recipe must come before KEY=VALUE arguments")
        }
        ErrorKind::NotFound if is_yaml => format!("config file {path} does not exist"),
        ErrorKind::NotFound => format!("no such file or folder: {path}"),
        ErrorKind::InvalidData if is_yaml => format!("config file {path} is not UTF-8 text"),
        ErrorKind::InvalidData => format!("{path} is not a config file (.yaml): {IMAGES}"),
        ErrorKind::IsADirectory => format!("config file {path} is a folder: name a file in it"),
        _ => format!("cannot read the config file {path}: {error}"),
    })
}
