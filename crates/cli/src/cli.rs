//! The list of commands, and the dispatch to their modules. The arguments of each command are
//! defined next to its implementation, in `commands/`.

use std::io::Write;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use crate::commands;
use crate::failure::Result;

/// Pre-train vision transformers on images without labels, and see what they learned.
#[derive(Debug, Parser)]
#[command(name = "simdino", version, propagate_version = true)]
#[command(after_help = "Exit codes: 0 success; 1 failure, for example if images, weights, \
                        checkpoints, or devices are missing or do not fit; 2 invalid arguments or \
                        config; 3 stopped by a signal after writing a checkpoint.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a backbone on images without labels
    Train(commands::train::Args),
    /// Measure what a backbone learned
    Eval(Box<commands::eval::Args>),
    /// List the numbers of the paper with the commands that measure them, and compare ours
    Reproduce(commands::reproduce::Args),
    /// Measure how good masks, boxes, and tracks in files are, without a network
    Score(commands::score::Args),
    /// Write the features of images to a file
    Embed(commands::embed::Args),
    /// Convert weights of DINO, DINOv2, timm, or Hugging Face to a file of simdino
    Import(commands::import::Args),
    /// Write a backbone as a folder that timm, transformers, or DINOv2 can open
    Export(commands::export::Args),
    /// Show what is in a checkpoint, weights of any kind, a run, a data source, or this machine
    Inspect(commands::inspect::Args),
    /// Draw synthetic images, find broken images, and pack and index shards
    Data(commands::data::Args),
    /// Study the coding rate on synthetic or saved features
    Analyze(commands::analyze::Args),
    /// Draw pictures of augmentations, features, and tracked objects
    Picture(commands::picture::Args),
    /// Train a grid of settings, and write one table and page about all runs
    Study(commands::study::Args),
    /// Write one HTML page about a run
    Report(commands::report::Args),
    /// Print a config with every default, all of its problems, or a recipe
    Config(commands::config::Args),
    /// Measure speed and memory
    Bench(commands::bench::Args),
    /// Print completions for a shell
    Completions(commands::completions::Args),
}

/// What clap passes on from Rust's number parsers, and what to print instead.
const PLAIN: [(&str, &str); 4] = [
    ("number would be zero for non-zero type", "must be at least 1"),
    ("invalid digit found in string", "must be a whole number"),
    ("invalid float literal", "must be a number"),
    ("number too large to fit in target type", "is too large"),
];

/// Parses the command line, or prints what is wrong with it and exits.
pub fn parse() -> Cli {
    Cli::try_parse().unwrap_or_else(|error| {
        if error.kind() != ErrorKind::ValueValidation {
            error.exit();
        }
        let text = error.render().to_string();
        let plain = PLAIN.iter().fold(text, |text, (rust, plain)| text.replace(rust, plain));
        let _ = write!(std::io::stderr(), "{plain}");
        std::process::exit(2)
    })
}

/// Runs a command.
///
/// # Errors
/// Returns the failure that stopped the command, which includes the exit code.
pub fn dispatch(command: Command) -> Result<()> {
    match command {
        Command::Train(args) => commands::train::run(&args),
        Command::Eval(args) => commands::eval::run(&args),
        Command::Reproduce(args) => commands::reproduce::run(&args),
        Command::Score(args) => commands::score::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Embed(args) => commands::embed::run(&args),
        Command::Import(args) => commands::import::run(&args),
        Command::Export(args) => commands::export::run(&args),
        Command::Inspect(args) => commands::inspect::run(&args),
        Command::Data(args) => commands::data::run(&args),
        Command::Analyze(args) => commands::analyze::run(&args),
        Command::Picture(args) => commands::picture::run(&args),
        Command::Study(args) => commands::study::run(&args),
        Command::Report(args) => commands::report::run(&args),
        Command::Config(args) => commands::config::run(&args),
        Command::Completions(args) => commands::completions::run(&args, Cli::command()),
    }
}
