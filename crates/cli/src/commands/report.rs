//! `simdino report`: writes an HTML page about a run, or one that compares several.

use std::path::{Path, PathBuf};

use crate::config::{self, RunConfig};
use crate::console::{answer, note};
use crate::failure::{Context, Failure, Result};
use crate::out::folder_for;

/// Arguments of `simdino report`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a run, or of evaluations (`eval --out`); several runs are compared on one page
    #[arg(required = true)]
    runs: Vec<PathBuf>,
    /// The page; by default report.html in the folder of the run, or comparison.html here for
    /// several
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a folder is not that of a run or of evaluations, or the page cannot be
/// written.
pub fn run(args: &Args) -> Result<()> {
    let is_page =
        |path: &PathBuf| path.extension().is_some_and(|end| end == "html" || end == "htm");
    if let Some(out) = args.out.as_ref().filter(|out| !is_page(out)) {
        return Err(Failure::usage(format!("--out {}: must end in .html", out.display())));
    }
    for run in &args.runs {
        for damage in report::damage(run, &read_config) {
            note(&format!("warning: {damage}"));
        }
    }
    let path = match (args.runs.as_slice(), &args.out) {
        ([run], None) => write(run)?,
        ([run], Some(out)) => write_page(out, &report::html(run, &read_config)?)?,
        (runs, out) => {
            let page = report::html_of_several(runs, &read_config)?;
            let file = out.clone().unwrap_or_else(|| PathBuf::from("comparison.html"));
            if out.is_none() && file.exists() {
                note(&format!("replacing {}; --out names another file", file.display()));
            }
            write_page(&file, &page)?
        }
    };
    answer(&format!("{}\n", path.display()))
}

/// Parses the config of a run; `None` if this version cannot read it.
fn read_config(text: &str) -> Option<RunConfig> {
    config::of_run(text).ok()
}

fn write_page(path: &Path, page: &str) -> Result<PathBuf> {
    let cannot = || format!("{}: cannot write the report", path.display());
    folder_for(path).context(cannot)?;
    base::write_atomic(path, page.as_bytes()).context(cannot)?;
    Ok(path.to_owned())
}

/// Writes `report.html` into the folder of a run and returns its path.
///
/// # Errors
/// Returns an error if the folder is not that of a run or cannot be written.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let page = report::html(folder, &read_config)?;
    write_page(&folder.join("report.html"), &page)
}
