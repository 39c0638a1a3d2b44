//! The results of evaluations, and how they are saved and printed.

use std::path::Path;

use augment::EvalTransform;
use eval::record::{DataUsed, Record, TRUTH};
use eval::results::{self, Results};
use protocols::{Protocol, Subject};
use report::percent;
use serde_json::Value;

use crate::console::{answer, note};
use crate::failure::{Failure, Result};
use crate::sizes::words;

use super::networks::{Networks, writable};
use super::terminal::Terminal;

/// The result of a protocol for one network.
pub struct Measured {
    /// The records to save.
    pub records: Vec<Record>,
    /// The object that `--json` prints on one line.
    pub json: Value,
    /// The text that is printed if this is the only network.
    pub text: String,
    /// Whether something that was asked for could not be measured.
    pub incomplete: bool,
}

impl Measured {
    /// Creates a result with the records of a protocol that has a single one.
    ///
    /// # Errors
    /// Returns an error if a number of a record is not finite.
    pub fn of(mut records: Vec<Record>) -> Result<Self> {
        match records.pop() {
            Some(only) if records.is_empty() => Self::of_one(only),
            last => Self::of_several(records.into_iter().chain(last).collect()),
        }
    }

    /// Creates a result with a single record, which is also what is printed.
    ///
    /// # Errors
    /// Returns an error if a number of the record is not finite.
    pub fn of_one(record: Record) -> Result<Self> {
        record.check()?;
        let (json, text) = (serde_json::to_value(&record)?, text_of(&record));
        Ok(Self { records: vec![record], json, text, incomplete: false })
    }

    /// Creates a result with the records of a protocol, of which `--json` prints an array.
    ///
    /// # Errors
    /// Returns an error if a number of a record is not finite.
    pub fn of_several(records: Vec<Record>) -> Result<Self> {
        records.iter().try_for_each(Record::check)?;
        let text = records.iter().map(text_of).collect::<Vec<_>>().join("\n");
        let json = serde_json::to_value(&records)?;
        Ok(Self { json, text, records, incomplete: false })
    }
}

/// The results of all networks.
pub struct Outcome {
    measured: Vec<Measured>,
    /// Paths of the networks that could not be measured.
    failed: Vec<String>,
    json: bool,
}

/// Measures each network, and saves its records at once.
///
/// # Errors
/// Returns an error if results cannot be read or written, or if the only network could not be
/// measured. If there are several, those that fail are skipped, and [`Outcome::print`] reports
/// them.
pub fn measure_each(
    networks: &Networks,
    measure: &mut dyn FnMut(&Subject) -> Result<Measured>,
) -> Result<Outcome> {
    let paths = networks.paths()?;
    check_folders(networks)?;
    let (mut measured, mut failed) = (Vec::new(), Vec::new());
    for path in &paths {
        match measure_one(networks, path, measure) {
            Ok(result) => measured.push(result),
            Err(failure) if paths.len() == 1 => return Err(failure),
            Err(failure) => {
                let lines = failure.lines().join("; ");
                note(&format!("warning: skipped {}: {lines}", path.display()));
                failed.push(path.display().to_string());
            }
        }
    }
    Ok(Outcome { measured, failed, json: networks.json })
}

/// Measures each network by a protocol, after checking the folders of results and the images.
///
/// # Errors
/// Same as for [`measure_each`], and if the images cannot be found.
pub fn measure_all(
    networks: &Networks,
    protocol: &dyn Protocol,
    terminal: &Terminal,
) -> Result<Outcome> {
    check_folders(networks)?;
    protocol.check()?;
    measure_each(networks, &mut |subject| Measured::of(protocol.measure(subject, terminal)?))
}

/// Checks the folders and files of results, before anything is measured, which may take hours.
///
/// # Errors
/// Returns an error if results cannot be read or written.
pub fn check_folders(networks: &Networks) -> Result<()> {
    let paths = networks.paths()?;
    for folder in paths.iter().filter_map(|path| networks.folder_of_results(path)) {
        if folder.is_file() {
            let folder = folder.display();
            return Err(Failure::usage(format!("--out {folder}: is a file, not a folder")));
        }
        Results::read(&folder)?;
        writable(&folder).map_err(|error| {
            let folder = folder.display();
            Failure::failed(format!(
                "{folder}: cannot write the results here ({error}); choose another folder with \
                 --out"
            ))
        })?;
    }
    Ok(())
}

fn measure_one(
    networks: &Networks,
    path: &Path,
    measure: &mut dyn FnMut(&Subject) -> Result<Measured>,
) -> Result<Measured> {
    let measured = measure(&networks.open(path)?)?;
    if let Some(folder) = networks.folder_of_results(path) {
        keep(&folder, &measured.records)?;
    }
    Ok(measured)
}

/// Saves records in `results.json` and `results.csv` of a folder. They replace earlier records of
/// the same measurement.
///
/// # Errors
/// Returns an error if a number of a record is not finite or a file cannot be read or written.
pub fn keep(folder: &Path, records: &[Record]) -> Result<()> {
    let put =
        |results: &mut Results| records.iter().cloned().try_for_each(|record| results.put(record));
    Ok(results::update(folder, put)?)
}

impl Outcome {
    /// Returns the outcome of a process that leaves the evaluation to another one.
    pub fn of_another_process() -> Self {
        Self { measured: Vec::new(), failed: Vec::new(), json: false }
    }

    /// Returns the records of all networks.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.measured.iter().flat_map(|one| &one.records)
    }

    /// Prints the results.
    ///
    /// # Errors
    /// Returns an error if a network could not be measured or the output cannot be written.
    pub fn print(&self) -> Result<()> {
        if self.json {
            let lines = self.measured.iter().map(|result| serde_json::to_string(&result.json));
            let lines: Vec<String> = lines.collect::<std::result::Result<_, _>>()?;
            answer(&(lines.join("\n") + "\n"))?;
        } else {
            match self.measured.as_slice() {
                [] => {}
                [only] => answer(&only.text)?,
                _ => answer(&table(&self.records().collect::<Vec<_>>()))?,
            }
        }
        match self.failed.as_slice() {
            [] if self.measured.iter().any(|one| one.incomplete) => {
                Err(Failure::failed("some protocols could not be measured, for the reasons above"))
            }
            [] => Ok(()),
            failed => Err(Failure::failed(format!("could not measure {}", failed.join(", ")))),
        }
    }
}

/// Formats a table with a row per record, its main score and those of the baselines, and with a row
/// per few-shot score. Below it, says what each protocol saw, and the notes of all records.
pub fn table(records: &[&Record]) -> String {
    let score = |record: &Record, metric: &String, column: &str| {
        let metrics = record.columns().find(|(name, _)| *name == column);
        metrics.and_then(|(_, metrics)| metrics.get(metric)).map(|&score| percent(score, 1))
    };
    let or_none = |score: Option<String>| score.unwrap_or_else(|| "-".to_owned());
    let simple = |record: &Record, metric: &String| {
        let found = record.without_network(metric);
        or_none(found.map(|(name, score)| format!("{} ({name})", percent(score, 1))))
    };
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let head = ["protocol", "metric", "this network", "untrained", "no network", "rank", "weights"];
    let mut rows = vec![head.map(str::to_owned)];
    let is_few_shot = |name: &&String| name.starts_with("shots") && name.ends_with("_top1");
    for record in records {
        let mut few_shot: Vec<&String> = record.metrics.keys().filter(is_few_shot).collect();
        few_shot.sort_by_key(|name| natural(name));
        rows.extend(std::iter::once(&record.main).chain(few_shot).map(|metric| {
            [
                record.protocol.clone(),
                metric.clone(),
                or_none(score(record, metric, eval::record::THIS)),
                or_none(score(record, metric, "untrained")),
                simple(record, metric),
                number(record.effective_rank),
                record.weights.path.clone(),
            ]
        }));
    }
    format!("{}\n{}{}", aligned(&rows, &[0, 1, 6]), seen(records), notes(records))
}

/// Describes what each protocol saw: once if that is the same for all networks, so that their rows
/// can be compared, and for each network otherwise.
fn seen(records: &[&Record]) -> String {
    let mut text = String::new();
    let mut done: Vec<&str> = Vec::new();
    for record in records {
        if done.contains(&record.protocol.as_str()) {
            continue;
        }
        done.push(&record.protocol);
        let same = records.iter().filter(|other| other.protocol == record.protocol);
        let titles: Vec<(String, &str)> =
            same.map(|record| (title(record), record.weights.path.as_str())).collect();
        if titles.iter().all(|(other, _)| *other == titles[0].0) {
            text += &format!("{}\n", titles[0].0);
            continue;
        }
        text += &format!("warning: the rows of {} are not comparable:\n", record.protocol);
        titles.iter().for_each(|(title, path)| text += &format!("  {path}: {title}\n"));
    }
    text
}

/// Returns the notes of all records, each of them once.
fn notes(records: &[&Record]) -> String {
    let mut notes: Vec<&String> = Vec::new();
    for note in records.iter().flat_map(|record| &record.notes) {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    notes.iter().map(|text| format!("note: {text}\n")).collect()
}

/// Returns a key that sorts `shots10` after `shots5`: the parts of a name, in which numbers come
/// before other text.
fn natural(name: &str) -> Vec<(u64, String)> {
    let mut parts: Vec<(u64, String)> = Vec::new();
    for character in name.chars() {
        let digit = character.to_digit(10).map(u64::from);
        match (digit, parts.last_mut()) {
            (Some(digit), Some((number, text))) if text.is_empty() => {
                *number = number.saturating_mul(10).saturating_add(digit);
            }
            (Some(digit), _) => parts.push((digit, String::new())),
            (None, Some((_, text))) if !text.is_empty() => text.push(character),
            (None, _) => parts.push((u64::MAX, character.to_string())),
        }
    }
    parts
}

/// Formats all scores of a record.
pub fn text_of(record: &Record) -> String {
    let columns: Vec<_> = record.columns().collect();
    let head = std::iter::once(String::new());
    let mut rows: Vec<Vec<String>> =
        vec![head.chain(columns.iter().map(|(name, _)| (*name).to_owned())).collect()];
    let mut names: Vec<&String> = record.metrics.keys().collect();
    names.sort_by_key(|name| (**name != record.main, natural(name)));
    for name in names {
        let cell = |(_, metrics): &(&str, &eval::record::Metrics)| {
            metrics.get(name).map_or_else(|| "-".to_owned(), |&score| report::score(name, score))
        };
        rows.push(std::iter::once(name.clone()).chain(columns.iter().map(cell)).collect());
    }
    let chosen = record.chosen.iter().filter(|(_, value)| !value.is_object());
    let chosen = chosen.map(|(name, value)| format!("chosen: {name} = {value}\n"));
    let notes = record.notes.iter().map(|text| format!("note: {text}\n"));
    let after: String = chosen.chain(notes).collect();
    format!("{}: {}\n{}{after}", record.weights.path, title(record), aligned(&rows, &[0]))
}

/// Describes the protocol, the images, and their size.
fn title(record: &Record) -> String {
    let mut parts = vec![record.protocol.clone()];
    let set = |data: &DataUsed| match data.role.as_str() {
        "train" => "training".to_owned(),
        role => role.to_owned(),
    };
    let classes = |data: &DataUsed| {
        data.classes.map_or_else(String::new, |classes| format!(" of {classes} classes"))
    };
    parts.extend(
        record
            .data
            .iter()
            .filter(|data| data.role != TRUTH)
            .map(|data| format!("{} {} images{}", data.images, set(data), classes(data))),
    );
    if let (Some(resize), Some(crop)) = (record.resize, record.crop) {
        parts.push(words(EvalTransform { resize, crop }));
    }
    // Dense evaluations have only a crop, without which their numbers mean little.
    if let (None, Some(crop)) = (record.resize, record.crop) {
        parts.push(format!("crop {crop}"));
    }
    for name in ["recipe", "protocol", "iterations", "stride", "max_side"] {
        parts.extend(record.settings.get(name).map(|value| match value.as_str() {
            Some(text) => format!("{name} {text}"),
            None => format!("{name} {value}"),
        }));
    }
    if record.settings.contains_key("mask") {
        parts.push(match record.mask_size {
            Some(side) => format!("masks of {side} pixels"),
            None => "masks of the original size".to_owned(),
        });
    }
    parts.push(record.precision.clone());
    parts.join("; ")
}

/// Aligns rows of text in columns. The columns in `left` are left-aligned, and the others
/// right-aligned.
fn aligned<R: AsRef<[String]>>(rows: &[R], left: &[usize]) -> String {
    let columns = rows.iter().map(|row| row.as_ref().len()).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.as_ref().get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &R| {
        let cells = row.as_ref().iter().zip(&widths).enumerate().map(|(i, (cell, &width))| {
            if left.contains(&i) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}
