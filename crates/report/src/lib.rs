#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(unreachable_pub)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod chart;
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

use std::path::Path;

pub use error::{Error, Result};
use run::Run;
pub use scale::percent;
use simdino::RunConfig;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Renders the run in `folder` as an HTML page. `read_config` parses the text of
/// `config.resolved.yaml`; if it returns `None`, the page shows only the text.
///
/// # Errors
/// Returns an error if the folder does not exist or is not that of a run.
pub fn html(folder: &Path, read_config: &dyn Fn(&str) -> Option<RunConfig>) -> Result<String> {
    Ok(page(&Run::read(folder, read_config)?))
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

/// A self-contained page; `body` is HTML.
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
