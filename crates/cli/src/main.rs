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

fn main() -> ExitCode {
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
