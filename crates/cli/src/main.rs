//! The program `simdino`. This is the only crate that prints, reads the command line or the
//! environment, or parses YAML. Each command has its own file or folder in `commands/`.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod console;
mod failure;
mod label_meaning;
mod out;
mod progress;
mod shell;
mod sizes;
mod study;
mod train;
mod weights;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Number of open files that the program asks for; the system's hard limit may be lower.
const OPEN_FILES: u64 = 65_536;

fn main() -> ExitCode {
    allow_open_files();
    match cli::dispatch(cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            for line in failure.lines() {
                console::note(line);
            }
            ExitCode::from(failure.code())
        }
    }
}

/// Raises the soft limit on open files, which many systems keep at 1024 or less for compatibility.
/// Shards, sockets, and libtorch's workers all use file descriptors. Failing to raise the limit is
/// ignored: an operation that exceeds it later reports the error.
fn allow_open_files() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let allowed = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < allowed) {
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(allowed), maximum });
    }
}
