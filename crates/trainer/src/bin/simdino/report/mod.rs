//! One page about a run: `report.html`, a single file without scripts from elsewhere or fonts from
//! the network, that says so where a piece of the run is missing.

pub mod chart;
mod curves;
mod html;
mod results;
mod run;
mod scale;
mod sections;

use std::fs;
use std::path::{Path, PathBuf};

use crate::failure::{Context, Result};
use run::Run;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Writes `report.html` into the folder of a run and returns its path.
///
/// # Errors
/// The folder is not a run's, or cannot be written.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let page = page(&Run::read(folder)?);
    let path = folder.join("report.html");
    let unfinished = folder.join("report.html.new");
    fs::write(&unfinished, page)
        .and_then(|()| fs::rename(&unfinished, &path))
        .context(|| format!("{}: cannot write the report", path.display()))?;
    Ok(path)
}

fn page(run: &Run) -> String {
    let parts = [
        sections::header(run),
        sections::learnt(run),
        curves::training(run),
        sections::pictures(run),
        sections::broken(run),
        sections::config(run),
        sections::environment(run),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{}\n\
         <footer>Made by simdino {}.</footer>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n",
        html::escape(&run.name),
        parts.concat(),
        env!("CARGO_PKG_VERSION")
    )
}

#[cfg(test)]
mod tests;
