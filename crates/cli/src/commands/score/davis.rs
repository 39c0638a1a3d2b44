//! `simdino score davis`: J and F of tracked objects.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use base::counted;
use score::davis::{Options, Report, Statistics, score};
use serde_json::json;

use crate::console::answer;
use crate::failure::{Context, Failure, Result};

use super::words::percent;

/// Arguments of `simdino score davis`.
#[derive(Debug, clap::Args)]
pub struct DavisArgs {
    /// Annotations: a folder with one folder of PNG files per sequence, such as Annotations/480p
    #[arg(long, value_name = "FOLDER")]
    truth: PathBuf,
    /// Results: a folder of the same structure; the value of a pixel is the number of its object
    #[arg(long, value_name = "FOLDER")]
    results: PathBuf,
    /// Everything but 0 is one object, as in DAVIS 2016
    #[arg(long)]
    single_object: bool,
    /// A text file with one sequence per line, such as ImageSets/2017/val.txt; by default all of
    /// the truth
    #[arg(long, value_name = "FILE")]
    sequences: Option<PathBuf>,
    /// Write a table of all objects
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a file is invalid, is missing, or cannot be read or written.
pub fn run(args: &DavisArgs) -> Result<()> {
    let mut options = Options::default();
    options.single_object = args.single_object;
    if let Some(path) = &args.sequences {
        options.sequences = sequences(path)?;
    }
    let report = score(&args.truth, &args.results, &options)?;
    if let Some(path) = &args.csv {
        report.write_csv(path)?;
    }
    if args.json {
        let object = json!({
            "protocol": "davis",
            "truth": args.truth.display().to_string(),
            "results": args.results.display().to_string(),
            "single_object": args.single_object,
            "scores": report,
        });
        return answer(&format!("{object}\n"));
    }
    answer(&text(&report))
}

/// Reads the names of sequences from a file, one per line. A repeated name counts once.
///
/// # Errors
/// Returns an error if the file cannot be read or contains no name.
pub fn sequences(path: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(path);
    let text = text.context(|| format!("{}: cannot read the sequences", path.display()))?;
    let mut names: Vec<String> = Vec::new();
    for name in text.lines().map(str::trim).filter(|name| !name.is_empty()) {
        if !names.iter().any(|other| other == name) {
            names.push(name.to_owned());
        }
    }
    match names.is_empty() {
        true => Err(Failure::failed(format!("{}: no sequences listed", path.display()))),
        false => Ok(names),
    }
}

fn text(report: &Report) -> String {
    let mut names: Vec<&str> = report.objects.iter().map(|o| o.sequence.as_str()).collect();
    names.dedup();
    let width = names.iter().map(|name| name.len() + 4).max().unwrap_or(0).max(8);
    let objects = counted(report.objects.len(), "object", "objects");
    let mut text = format!("{}, {objects}\n", counted(names.len(), "sequence", "sequences"));
    let _ = writeln!(
        text,
        "{:width$}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}{:>9}",
        "", "J&F", "J", "recall", "decay", "F", "recall", "decay"
    );
    let mut row = |name: &str, j_and_f: f64, j: Statistics, f: Statistics, missed: usize| {
        let cells = [j_and_f, j.mean, j.recall, j.decay, f.mean, f.recall, f.decay];
        let cells: String = cells.iter().map(|s| format!("{:>9}", percent(Some(*s)))).collect();
        let note = match missed {
            0 => String::new(),
            missed => format!("  not found in {}", counted(missed, "frame", "frames")),
        };
        let _ = writeln!(text, "{name:width$}{cells}{note}");
    };
    for object in &report.objects {
        let name = format!("{} {}", object.sequence, object.object);
        row(&name, object.j_and_f, object.j, object.f, object.missed);
    }
    row("all", report.j_and_f, report.j, report.f, 0);
    text
}
