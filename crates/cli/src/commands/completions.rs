//! `simdino completions`: what a shell needs to complete verbs, options and file names.

use clap::Command;
use clap_complete::Shell;

use crate::console::answer;
use crate::failure::{Failure, Result};

/// What `simdino completions` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell that is to read the file
    shell: Shell,
}

/// Runs the verb for the whole command line, `program`.
///
/// # Errors
/// The output cannot be written.
pub fn run(args: &Args, mut program: Command) -> Result<()> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    let script = String::from_utf8(script);
    answer(&script.map_err(|error| Failure::failed(error.to_string()))?)
}
