//! The `simdino` command: the only crate that prints, reads the command line or the environment,
//! or knows YAML. Each command has its own file in `commands/`.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod console;
mod failure;
mod label_meaning;
mod progress;
mod shell;
mod sizes;
mod study;
mod train;
mod weights;

use std::process::ExitCode;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that the program may have open at a time, if the system allows so many.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    allow_open_files();
    match cli::dispatch(cli::Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.lines() {
                console::note(line);
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Raises the limit of open files, which many systems set to 1024 or less for old programs' sake. Shards,
/// sockets, and libtorch's workers each need some; where the limit stays, an error names it.
fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let allowed = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < allowed) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    }
}
