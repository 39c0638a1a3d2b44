//! `simdino report`: one HTML page about a run.

use std::path::{Path, PathBuf};

use trainer::files::write_atomic;

use crate::config;
use crate::console::answer;
use crate::failure::{Context, Result};

/// What `simdino report` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a run
    run: PathBuf,
}

/// Runs the verb.
///
/// # Errors
/// The folder is not a run's, or cannot be written.
pub fn run(args: &Args) -> Result<()> {
    let path = write(&args.run)?;
    answer(&format!("{}\n", path.display()))
}

/// Writes `report.html` into the folder of a run and returns its path.
///
/// # Errors
/// The folder is not a run's, or cannot be written.
pub fn write(folder: &Path) -> Result<PathBuf> {
    let read_config = |text: &str| config::of_run(text).ok();
    let page = report::html(folder, &read_config)?;
    let path = folder.join("report.html");
    write_atomic(&path, page.as_bytes())
        .context(|| format!("{}: cannot write the report", path.display()))?;
    Ok(path)
}
