#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod chart;
mod compare;
mod curves;
mod error;
mod evaluations;
mod heat;
mod markup;
mod results;
mod run;
mod scale;
mod sections;
mod spread;
pub mod study;

use std::path::{Path, PathBuf};

pub use error::{Error, Result};
use run::Run;
pub use scale::{percent, score};
use simdino::RunConfig;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Renders the run in `folder` as an HTML page, or the evaluations, if it contains nothing else.
/// `read_config` parses the text of `config.resolved.yaml`; if it returns `None`, the page shows
/// only the text.
///
/// # Errors
/// Returns an error if the folder does not exist, or is neither that of a run nor that of
/// evaluations.
pub fn html(folder: &Path, read_config: &dyn Fn(&str) -> Option<RunConfig>) -> Result<String> {
    match Run::read(folder, read_config) {
        Ok(run) => Ok(page(&run)),
        Err(error) => {
            let (name, body) = evaluations::page_of(folder)?.ok_or(error)?;
            Ok(document(&name, &body))
        }
    }
}

/// Returns a sentence for each file of the run in `folder` that exists but cannot be used; the page
/// shows them as missing. Empty if the folder is not that of a run. `read_config` is the same as for
/// [`html`].
pub fn damage(folder: &Path, read_config: &dyn Fn(&str) -> Option<RunConfig>) -> Vec<String> {
    Run::read(folder, read_config).map_or_else(|_| Vec::new(), |run| run.damage(folder))
}

/// Renders several runs as one HTML page, with their curves in the same charts and their results
/// side by side. `read_config` is the same as for [`html`].
///
/// # Errors
/// Returns an error if a folder does not exist or is not the folder of a run.
pub fn html_of_several(
    folders: &[PathBuf],
    read_config: &dyn Fn(&str) -> Option<RunConfig>,
) -> Result<String> {
    let runs = folders.iter().map(|folder| Run::read(folder, read_config));
    let mut runs: Vec<Run> = runs.collect::<Result<_>>()?;
    // Runs with the same name are told apart by their paths, as given.
    let names: Vec<String> = runs.iter().map(|run| run.name.clone()).collect();
    for (run, folder) in runs.iter_mut().zip(folders) {
        if names.iter().filter(|name| **name == run.name).count() > 1 {
            run.name = folder.display().to_string();
        }
    }
    Ok(document("comparison", &compare::body(&runs)))
}

fn page(run: &Run) -> String {
    let parts = [
        sections::header(run),
        sections::learned(run),
        evaluations::evaluations(run),
        curves::training(run),
        sections::pictures(run),
        sections::broken(run),
        sections::config(run),
        sections::environment(run),
    ];
    document(&run.name, &parts.concat())
}

/// Returns a self-contained page; `body` is HTML.
fn document(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\n\
         <footer>Made by simdino {}.</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        markup::escape(title),
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests;
