//! `simdino data check`: reads every image and says what there is.

use std::fmt::Write;
use std::path::Path;

use data::check::CheckReport;
use data::config::DataConfig;
use data::dataset::Dataset;
use serde_json::{Value, json};

use crate::console::{answer, progress};
use crate::failure::{Failure, Result};

/// Broken images that the table names; `--json` names all.
const MAX_BROKEN: usize = 20;
/// Groups of equal files that the table names; `--json` names all.
const MAX_DUPLICATES: usize = 20;
/// Classes that the table names; `--json` names all.
const MAX_CLASSES: usize = 20;

/// What `data check` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder, list file, or tar shards
    path: String,
    /// Images with a shorter side, in pixels, count as broken
    #[arg(long, default_value_t = DataConfig::default().min_side)]
    min_side: u32,
    /// Only the channels' mean and std, as the lines of a config
    #[arg(long, conflicts_with = "json")]
    stats: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
///
/// # Errors
/// The images cannot be opened, or none of them be read.
pub fn run(args: &Args) -> Result<()> {
    let config =
        DataConfig { path: args.path.clone(), min_side: args.min_side, ..DataConfig::default() };
    let dataset = data::open(&config)?;
    let bar = progress(dataset.len(), "images read");
    let report = data::check::check(&dataset, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    if args.json {
        answer(&format!("{}\n", as_json(&dataset, &report)))?;
    } else if args.stats {
        answer(&as_config(&report))?;
    } else {
        answer(&as_table(Path::new(&args.path), &dataset, &report))?;
    }
    if report.broken.len() == report.images {
        return Err(Failure::failed(format!("{}: no image can be read", args.path)));
    }
    Ok(())
}

/// Mean and std, to be pasted into a config.
fn as_config(report: &CheckReport) -> String {
    let list = |values: [f64; 3]| values.map(|v| format!("{v:.4}")).join(", ");
    format!("augment:\n  mean: [{}]\n  std: [{}]\n", list(report.mean), list(report.std))
}

fn class_name(dataset: &Dataset, label: u32) -> String {
    let name = dataset.class_names().get(label as usize);
    name.cloned().unwrap_or_else(|| label.to_string())
}

fn as_table(path: &Path, dataset: &Dataset, report: &CheckReport) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{value}");
    };
    row("source", format!("{} ({})", path.display(), dataset.kind()));
    row("images", report.images.to_string());
    row("broken", report.broken.len().to_string());
    let formats = report.formats.iter().map(|(format, count)| format!("{format} {count}"));
    row("formats", formats.collect::<Vec<_>>().join(", "));
    for (name, extent) in [("width", report.width), ("height", report.height)] {
        let (min, median, max) = (extent.min, extent.median, extent.max);
        row(name, format!("{min} to {max} pixels, median {median}"));
    }
    let sides = report.side_histogram.iter();
    let sides = sides.map(|(low, count)| format!("{low}-{}: {count}", 2 * low - 1));
    row("shorter side", sides.collect::<Vec<_>>().join(", "));
    row("labels", labels(dataset, report));
    let channels = |values: [f64; 3]| values.map(|v| format!("{v:.3}")).join(", ");
    row("channel mean", format!("[{}]", channels(report.mean)));
    row("channel std", format!("[{}]", channels(report.std)));
    let (superfluous, groups) = (report.superfluous(), report.duplicates.len());
    row("duplicates", format!("{superfluous} superfluous, in {groups} group(s) of equal files"));
    for group in report.duplicates.iter().take(MAX_DUPLICATES) {
        let names: Vec<String> = group.iter().map(|&index| dataset.name(index)).collect();
        row("  equal", names.join(", "));
    }
    if report.duplicates.len() > MAX_DUPLICATES {
        let more = report.duplicates.len() - MAX_DUPLICATES;
        row("  equal", format!("and {more} groups more; --json names all"));
    }
    for image in report.broken.iter().take(MAX_BROKEN) {
        row("  broken", format!("{}: {}", image.name, image.reason));
    }
    if report.broken.len() > MAX_BROKEN {
        let more = report.broken.len() - MAX_BROKEN;
        row("  broken", format!("and {more} more; --json names all"));
    }
    text
}

fn labels(dataset: &Dataset, report: &CheckReport) -> String {
    if report.labels.is_empty() {
        return "none".into();
    }
    let mut parts: Vec<String> = report
        .labels
        .iter()
        .take(MAX_CLASSES)
        .map(|(&label, count)| format!("{} {count}", class_name(dataset, label)))
        .collect();
    if report.labels.len() > MAX_CLASSES {
        parts.push(format!("and {} more", report.labels.len() - MAX_CLASSES));
    }
    if report.unlabelled > 0 {
        parts.push(format!("without a label {}", report.unlabelled));
    }
    format!("{} classes: {}", report.labels.len(), parts.join(", "))
}

fn as_json(dataset: &Dataset, report: &CheckReport) -> Value {
    let extent = |e: data::check::Extent| json!({"min": e.min, "median": e.median, "max": e.max});
    let labels: serde_json::Map<String, Value> = report
        .labels
        .iter()
        .map(|(&label, &count)| (class_name(dataset, label), count.into()))
        .collect();
    let broken: Vec<Value> = report
        .broken
        .iter()
        .map(|image| json!({"name": image.name, "index": image.index, "reason": image.reason}))
        .collect();
    let duplicates: Vec<Vec<String>> = report
        .duplicates
        .iter()
        .map(|group| group.iter().map(|&index| dataset.name(index)).collect())
        .collect();
    json!({
        "duplicates": duplicates,
        "kind": dataset.kind(),
        "fingerprint": dataset.fingerprint(),
        "images": report.images,
        "formats": report.formats,
        "width": extent(report.width),
        "height": extent(report.height),
        "shorter_side": extent(report.shorter_side),
        "labels": labels,
        "unlabelled": report.unlabelled,
        "mean": report.mean,
        "std": report.std,
        "broken": broken,
    })
}
