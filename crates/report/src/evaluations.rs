//! The table of all evaluations of a run, or of a folder with nothing but evaluations.

use std::collections::BTreeSet;
use std::path::Path;

use eval::record::{DataUsed, Record, THIS, TRUTH, Weights};
use eval::results::Results;
use serde_json::Value;

use super::error::{Error, Result};
use super::markup::{self, absent, escape, section, text_table};
use super::run::{Run, name_of};
use super::scale::{self, percent};

const HEADING: &str = "Evaluations";

/// Number of digits that are shown of the fingerprint of weights.
const SHOWN: usize = 12;

/// Titles of the columns.
const HEAD: [&str; 8] =
    ["weights", "step", "protocol", "metric", THIS, "untrained", "no network", "effective rank"];

/// Returns the section with all evaluations in `results.json`; empty if there are none.
pub(crate) fn evaluations(run: &Run) -> String {
    let Ok(Value::Object(entries)) = &run.results else { return String::new() };
    let results = match Results::from_entries(entries.clone()) {
        Ok(results) => results,
        Err(error) => {
            return absent(
                HEADING,
                &format!("the evaluations in results.json are damaged: {error}"),
            );
        }
    };
    match results.records() {
        [] => String::new(),
        records => table(records),
    }
}

/// Returns the title and the body of a page about a folder that `simdino eval --out` wrote; `None`
/// if it contains no evaluations.
///
/// # Errors
/// Returns an error if their file is damaged.
pub(crate) fn page_of(folder: &Path) -> Result<Option<(String, String)>> {
    let results = Results::read(folder).map_err(|error| Error::NotARun {
        folder: folder.display().to_string(),
        why: base::error_chain(&error),
    })?;
    let records = results.records();
    let networks: BTreeSet<_> = records.iter().map(|record| &record.weights.fingerprint).collect();
    if records.is_empty() {
        return Ok(None);
    }
    let count = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let lead = [count(records.len(), "evaluation"), count(networks.len(), "network")].join(" of ");
    let name = name_of(folder);
    let header = format!(
        "<header>\n<p class=\"kind\">simdino evaluations</p>\n<h1>{}</h1>\n\
         <p class=\"lead\">{lead}</p>\n</header>\n",
        escape(&name)
    );
    Ok(Some((name, header + &table(records))))
}

/// Returns the section with the table, and with the notes on its rows.
fn table(records: &[Record]) -> String {
    let rows: Vec<Vec<String>> = records.iter().map(row).collect();
    let table = markup::table(&HEAD, &rows);
    let mut notes = vec![
        "All protocols use frozen features; untrained is the same network before its first step. \
         results.csv has all numbers.",
    ];
    for text in records.iter().flat_map(|record| &record.notes) {
        if !notes.contains(&text.as_str()) {
            notes.push(text);
        }
    }
    let note = |text: &&str| format!("<p class=\"note\">{}</p>\n", escape(text));
    let notes: String = notes.iter().map(note).collect();
    let details: String = records.iter().map(details).collect();
    section("evaluations", HEADING, &format!("{table}{notes}{details}"))
}

/// Returns the cells of one evaluation, in the order of [`HEAD`].
fn row(record: &Record) -> Vec<String> {
    let main = |column: &str| {
        let found = record.columns().find(|(name, _)| *name == column);
        let score = found.and_then(|(_, metrics)| metrics.get(&record.main));
        score.map_or_else(|| "-".to_owned(), |&score| percent(score, 1))
    };
    let without_network = record.without_network(&record.main);
    let without_network =
        without_network.map(|(name, score)| format!("{} ({name})", percent(score, 1)));
    vec![
        record.weights.path.clone(),
        record.weights.step.to_string(),
        record.protocol.clone(),
        named(&record.main),
        main(THIS),
        main("untrained"),
        without_network.unwrap_or_else(|| "-".to_owned()),
        number(record.effective_rank),
    ]
}

/// Returns everything else about an evaluation, which opens on a click.
fn details(record: &Record) -> String {
    let others = record.metrics.iter().filter(|(name, _)| **name != record.main);
    let others =
        others.map(|(name, &score)| format!("{} {}", named(name), scale::score(name, score)));
    let rows = [
        ("other metrics", joined(others)),
        ("effective dimension", number(record.effective_dimension)),
        ("settings", settings(record)),
        ("data", images(record)),
        ("images", sizes(record)),
        ("fingerprint of the weights", record.weights.fingerprint.chars().take(SHOWN).collect()),
        ("version", record.version.clone()),
    ];
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| vec![name.to_owned(), value])
        .collect();
    let Weights { path, step, .. } = &record.weights;
    let title = escape(&format!("{} of {path}, step {step}", record.protocol));
    format!("<details><summary>{title}</summary>\n{}</details>\n", text_table(&[], &rows))
}

/// Formats a number; `-` if there is none.
fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

/// Returns the name of a metric as a page shows it: files call top-1 accuracy `top1`.
fn named(metric: &str) -> String {
    metric.replace("top1", "top-1").replace("top5", "top-5")
}

/// Describes what two scores must share, besides the protocol, to be comparable: the settings, the
/// images, and the sizes.
pub(crate) fn described(record: &Record) -> String {
    let parts = [settings(record), images(record), sizes(record)];
    joined(parts.into_iter().filter(|part| !part.is_empty()))
}

fn settings(record: &Record) -> String {
    joined(record.settings.iter().map(|(name, value)| format!("{name} {}", short(value))))
}

fn images(record: &Record) -> String {
    let of = |data: &DataUsed| match data.role.as_str() {
        TRUTH => format!("{TRUTH}: {}", data.path),
        role => {
            let images = if data.images == 1 { "image" } else { "images" };
            format!("{role}: {} {images} in {}", data.images, data.path)
        }
    };
    joined(record.data.iter().map(of))
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Formats the sizes of images and masks, and the precision.
fn sizes(record: &Record) -> String {
    let named = [("resize", record.resize), ("crop", record.crop), ("masks", record.mask_size)];
    let named = named.into_iter().filter_map(|(name, size)| Some(format!("{name} {}", size?)));
    joined(named.chain([record.precision.clone()]).filter(|part| !part.is_empty()))
}

/// Formats a value; a long list is abbreviated to its length and its ends.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => match list.as_slice() {
            [first, .., last] if list.len() > 6 => {
                format!("{} values from {first} to {last}", list.len())
            }
            _ => value.to_string(),
        },
        _ => value.to_string(),
    }
}
