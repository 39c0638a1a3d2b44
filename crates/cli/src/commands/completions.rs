//! `simdino completions`: prints a script that lets a shell complete commands, options, and file
//! names.

use clap::Command;
use clap_complete::Shell;

use crate::console::answer;
use crate::failure::{Failure, Result};

/// Arguments of `simdino completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Shell to print the completions for
    shell: Shell,
}

/// Runs the command; `program` is the definition of the whole command line.
///
/// # Errors
/// Returns an error if the output cannot be written.
pub fn run(args: &Args, mut program: Command) -> Result<()> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, name, &mut script);
    let script = String::from_utf8(script);
    answer(&script.map_err(|error| Failure::failed(error.to_string()))?)
}
