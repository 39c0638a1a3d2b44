//! `simdino report`: one HTML page about a run.

use std::path::PathBuf;

use crate::console::answer;
use crate::failure::Result;
use crate::report;

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
    let path = report::write(&args.run)?;
    answer(&format!("{}\n", path.display()))
}
