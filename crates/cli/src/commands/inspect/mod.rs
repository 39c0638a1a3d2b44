//! `simdino inspect`: shows the contents of a weight file, a checkpoint, a run, or a data source,
//! or describes this machine.

mod environment;
mod files;
mod findings;

use std::path::Path;

use self::findings::Findings;
use crate::console::answer;
use crate::failure::{Failure, Result};

/// Arguments of `simdino inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A weight file, a checkpoint, a run, or images; or `env` for this machine
    what: String,
    /// With `env`: compute on every device and compare with the CPU in double precision
    #[arg(long)]
    self_check: bool,
    /// One JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if there is no such file or folder, it is damaged, or the self-check fails.
pub fn run(args: &Args) -> Result<()> {
    if args.what == "env" {
        let (findings, passed) = environment::inspect(args.self_check)?;
        print(args, &findings)?;
        return if passed { Ok(()) } else { Err(Failure::failed("the self-check failed")) };
    }
    if args.self_check {
        return Err(Failure::usage("--self-check can only be used with `simdino inspect env`"));
    }
    let path = Path::new(&args.what);
    // Patterns and addresses of shards are not files.
    let is_pattern = args.what.contains(['*', '{']) || args.what.contains("://");
    if !path.exists() && !is_pattern {
        return Err(Failure::failed(format!("{}: no such file or folder", path.display())));
    }
    print(args, &files::inspect(path)?)
}

fn print(args: &Args, findings: &Findings) -> Result<()> {
    if args.json { answer(&format!("{}\n", findings.json)) } else { answer(&findings.text) }
}
