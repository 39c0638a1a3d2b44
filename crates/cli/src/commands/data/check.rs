//! `simdino data check`: reads every image and reports what the dataset contains.

use std::fmt::Write;
use std::path::Path;

use base::{counted, printable};
use data::DataConfig;
use data::Dataset;
use data::check::CheckReport;
use data::decode::PixelFormat;
use serde_json::{Value, json};

use crate::console::{answer, progress};
use crate::failure::{Failure, Result};

/// Maximum number of broken images in the table; `--json` lists all.
const MAX_BROKEN: usize = 20;
/// Maximum number of groups of equal files in the table; `--json` lists all.
const MAX_DUPLICATES: usize = 20;
/// Maximum number of classes in the table, the largest ones; `--json` lists all.
const MAX_CLASSES: usize = 20;

/// Arguments of `simdino data check`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder, list file, or tar shards
    path: String,
    /// Images with a shorter side, in pixels, count as broken
    #[arg(long, default_value_t = DataConfig::default().min_side)]
    min_side: u32,
    /// Number of channels; gray images become RGB with 3, and images with another number count as
    /// broken
    #[arg(long, default_value_t = DataConfig::default().channels)]
    channels: usize,
    /// For images of more than 8 bits: the values that become 0 and 255, for all channels, or given
    /// once for each
    #[arg(long, value_name = "LOW:HIGH", value_parser = range, allow_hyphen_values = true)]
    value_range: Vec<[f64; 2]>,
    /// Only the channels' mean and std, as the lines of a config
    #[arg(long, conflicts_with = "json")]
    stats: bool,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if an option is invalid, the images cannot be opened, or none can be read.
pub fn run(args: &Args) -> Result<()> {
    if args.channels == 0 {
        return Err(Failure::usage("--channels: must be at least 1 (got 0)"));
    }
    let config = DataConfig {
        path: Some(args.path.clone()),
        min_side: args.min_side,
        ..DataConfig::default()
    };
    let pixels = PixelFormat { channels: args.channels, value_range: args.value_range.clone() };
    let config = config.with_pixels(pixels);
    if let Some((_, problem)) = config.validate().iter().find(|(key, _)| *key == "value_range") {
        return Err(Failure::usage(format!("--value-range: {problem}")));
    }
    let dataset = data::open(&config)?;
    let bar = progress(dataset.len(), "images read");
    let report = data::check::check(&dataset, |done| bar.set_position(done as u64));
    bar.finish_and_clear();
    if args.json {
        answer(&format!("{}\n", as_json(&dataset, &report)))?;
    } else if args.stats {
        answer(&as_config(&args.value_range, &report))?;
    } else {
        answer(&as_table(Path::new(&args.path), &dataset, &report))?;
    }
    if report.broken.len() == report.images {
        let first = report.broken.first().map(|image| format!("{}: {}", image.name, image.reason));
        return Err(Failure::failed(format!(
            "{}: none of the images can be read; the first is {}",
            args.path,
            first.unwrap_or_default()
        )));
    }
    Ok(())
}

/// Parses `LOW:HIGH`.
fn range(text: &str) -> std::result::Result<[f64; 2], String> {
    let (low, high) = text.split_once(':').ok_or("expected LOW:HIGH")?;
    let number = |text: &str| text.parse::<f64>().map_err(|_| format!("{text:?} is not a number"));
    Ok([number(low)?, number(high)?])
}

fn list(values: &[f64], digits: usize) -> String {
    let values: Vec<_> = values.iter().map(|v| format!("{v:.digits$}")).collect();
    format!("[{}]", values.join(", "))
}

fn pairs(ranges: &[[f64; 2]]) -> String {
    let pairs: Vec<_> = ranges.iter().map(|[low, high]| format!("[{low}, {high}]")).collect();
    pairs.join(", ")
}

/// Formats the mean and std for a config, with the range of values that they apply to.
fn as_config(value_range: &[[f64; 2]], report: &CheckReport) -> String {
    let mut text = String::new();
    if !value_range.is_empty() {
        let _ = writeln!(text, "data:\n  value_range: [{}]", pairs(value_range));
    }
    let (mean, std) = (list(&report.mean, 4), list(&report.std, 4));
    let _ = writeln!(text, "augment:\n  mean: {mean}\n  std: {std}");
    text
}

fn class_name(dataset: &Dataset, label: u32) -> String {
    let name = dataset.class_names().get(label as usize);
    name.cloned().unwrap_or_else(|| label.to_string())
}

fn as_table(path: &Path, dataset: &Dataset, report: &CheckReport) -> String {
    let mut text = String::new();
    let mut row = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14}{}", printable(&value));
    };
    row("source", format!("{} ({})", path.display(), dataset.kind()));
    let broken = report.broken.len();
    row(
        "images",
        match broken {
            0 => report.images.to_string(),
            _ => format!("{}, {} of them readable", report.images, report.images - broken),
        },
    );
    row("broken", broken.to_string());
    dataset.notices().sentences().into_iter().for_each(|sentence| row("note", sentence));
    if broken < report.images {
        sizes(report, &mut row);
    }
    row("labels", labels(dataset, report));
    if broken < report.images {
        row("channel mean", list(&report.mean, 3));
        row("channel std", list(&report.std, 3));
    }
    if !report.value_percentiles.is_empty() {
        let values = pairs(&report.value_percentiles);
        row("values", format!("{values} (2nd and 98th percentiles, for data.value_range)"));
    }
    let groups = counted(report.duplicates.len(), "group", "groups");
    let superfluous = report.superfluous();
    row("duplicates", format!("{superfluous} redundant, in {groups} of identical files"));
    for group in report.duplicates.iter().take(MAX_DUPLICATES) {
        let names: Vec<String> = group.iter().map(|&index| dataset.name(index)).collect();
        row("  identical", names.join(", "));
    }
    if report.duplicates.len() > MAX_DUPLICATES {
        let more = report.duplicates.len() - MAX_DUPLICATES;
        row("  identical", format!("and {more} more; --json lists all groups"));
    }
    for image in report.broken.iter().take(MAX_BROKEN) {
        row("  broken", format!("{}: {}", image.name, image.reason));
    }
    if report.broken.len() > MAX_BROKEN {
        let more = report.broken.len() - MAX_BROKEN;
        row("  broken", format!("and {more} more; --json lists all of them"));
    }
    text
}

/// Appends the rows about the formats and sizes of the readable images.
fn sizes(report: &CheckReport, row: &mut dyn FnMut(&str, String)) {
    let formats = report.formats.iter().map(|(format, count)| format!("{format}: {count}"));
    row("formats", formats.collect::<Vec<_>>().join(", "));
    for (name, extent) in [("width", report.width), ("height", report.height)] {
        let (min, median, max) = (extent.min, extent.median, extent.max);
        row(name, format!("{min} to {max} pixels, median {median}"));
    }
    let sides = report.side_histogram.iter();
    let sides = sides.map(|(low, count)| format!("{low}-{}: {count}", 2 * low - 1));
    row("shorter side", sides.collect::<Vec<_>>().join(", "));
}

fn labels(dataset: &Dataset, report: &CheckReport) -> String {
    if report.labels.is_empty() {
        return "none".into();
    }
    let mut largest: Vec<(u32, usize)> = report.labels.iter().map(|(&l, &c)| (l, c)).collect();
    if largest.len() > MAX_CLASSES {
        largest.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        largest.truncate(MAX_CLASSES);
    }
    let words = |&(label, count): &(u32, usize)| format!("{}: {count}", class_name(dataset, label));
    let mut parts: Vec<String> = largest.iter().map(words).collect();
    if report.labels.len() > MAX_CLASSES {
        parts.push(format!("and {} more", report.labels.len() - MAX_CLASSES));
    }
    if report.unlabeled > 0 {
        parts.push(format!("unlabeled: {}", report.unlabeled));
    }
    let classes = counted(report.labels.len(), "class", "classes");
    format!("{classes}; images of each: {}", parts.join(", "))
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
    let notices = dataset.notices();
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
        "unlabeled": report.unlabeled,
        "mean": report.mean,
        "std": report.std,
        "value_percentiles": report.value_percentiles,
        "broken": broken,
        "left_out": notices.left_out,
        "hidden": {"files": notices.hidden_files, "folders": notices.hidden_folders},
        "lost": notices.lost,
        "unread_labels": notices.unread_labels,
        "remarks": notices.remarks,
    })
}
