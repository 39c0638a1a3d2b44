//! The list of commands, and the dispatch to their modules. The arguments of each command are
//! defined next to its implementation, in `commands/`.

use std::io::Write;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use simdino::RunConfig;
use simdino::config::schema;

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
    Cli::try_parse().unwrap_or_else(|mut error| {
        match error.kind() {
            // clap would add the name of the command to that of the program.
            ErrorKind::DisplayVersion => {
                let _ = writeln!(std::io::stdout(), "simdino {}", env!("CARGO_PKG_VERSION"));
                std::process::exit(0)
            }
            ErrorKind::UnknownArgument => {
                suggest_key(&mut error, std::env::args().nth(1).as_deref());
                error.exit()
            }
            ErrorKind::ValueValidation => {
                let _ = write!(std::io::stderr(), "{}", plain(&error.render().to_string()));
                std::process::exit(2)
            }
            _ => error.exit(),
        }
    })
}

/// Suggests the key of a config in place of an option that `train` does not have, such as
/// `train.epochs=VALUE` for `--epochs`.
fn suggest_key(error: &mut clap::Error, command: Option<&str>) {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return };
    let name = option.trim_start_matches('-').replace('-', "_");
    let root = schema::of::<RunConfig>().ok().filter(|_| command == Some("train"));
    let keys = root.map(|root| schema::leaves(&root).into_iter().map(|(path, _)| path).collect());
    let keys: Vec<String> = keys.unwrap_or_default();
    let key = keys.iter().find(|path| path.rsplit('.').next() == Some(name.as_str()));
    if let Some(key) = key {
        let tip = format!("settings are given as KEY=VALUE: {key}=VALUE");
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
}

/// Replaces the words of Rust's number parsers and ranges in a message of clap.
fn plain(message: &str) -> String {
    let text =
        PLAIN.iter().fold(message.to_owned(), |text, (rust, plain)| text.replace(rust, plain));
    text.split('\n').map(plain_range).collect::<Vec<_>>().join("\n")
}

/// Replaces `0 is not in 1..=65535` at the end of a line.
fn plain_range(line: &str) -> String {
    let found = line.rsplit_once(" is not in ").and_then(|(front, range)| {
        let (low, high) = range.split_once("..=")?;
        let (front, _) = front.rsplit_once(": ")?;
        let unbounded = [u32::MAX.to_string(), u64::MAX.to_string(), i64::MAX.to_string()];
        Some(match unbounded.iter().any(|most| most == high) {
            true => format!("{front}: must be at least {low}"),
            false => format!("{front}: must be between {low} and {high}"),
        })
    });
    found.unwrap_or_else(|| line.to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_range_are_explained_in_plain_words() {
        let said = |args: &[&str]| plain(&Cli::try_parse_from(args).unwrap_err().to_string());
        let zero = said(&["simdino", "train", "demo", "--dry-run", "--processes", "0"]);
        assert!(zero.contains("'--processes <N>': must be between 1 and 65535\n"), "{zero}");
        let embed = ["simdino", "embed", "--weights", "w", "--data", "d", "--out", "f.npy"];
        let zero = said(&[&embed[..], &["--crop", "0"]].concat());
        assert!(zero.contains("'--crop <N>': must be at least 1\n"), "{zero}");
        let zero = said(&[&embed[..], &["--limit", "0"]].concat());
        assert!(zero.contains("must be at least 1"), "{zero}");
    }

    #[test]
    fn an_option_that_is_a_key_is_explained() {
        let said = |command: &str, option: &str| {
            let mut error = Cli::try_parse_from(["simdino", command, "x", option]).unwrap_err();
            suggest_key(&mut error, Some(command));
            error.to_string()
        };
        let epochs = said("train", "--epochs");
        assert!(epochs.contains("tip: settings are given as KEY=VALUE: train.epochs=VALUE"));
        assert!(!epochs.contains("similar"), "{epochs}");
        assert!(said("train", "--batch-size").contains("train.batch_size=VALUE"));
        assert!(!said("train", "--nothing-like-it").contains("KEY=VALUE:"));
        assert!(!said("study", "--epochs").contains("KEY=VALUE:"));
    }
}
