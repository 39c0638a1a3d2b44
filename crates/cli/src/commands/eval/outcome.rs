//! The results of evaluations, and how they are saved and printed.

use std::path::Path;

use augment::EvalTransform;
use eval::record::{DataUsed, Record, TRUTH};
use eval::results::{self, Results};
use report::percent;
use serde_json::Value;

use crate::console::{answer, note};
use crate::failure::{Failure, Result};
use crate::sizes::words;

use super::networks::{Networks, Opened, writable};

/// The result of a protocol for one network.
pub struct Measured {
    /// The records to save.
    pub records: Vec<Record>,
    /// The object that `--json` prints on one line.
    pub json: Value,
    /// The text that is printed if this is the only network.
    pub text: String,
}

impl Measured {
    /// Creates a result with a single record, which is also what is printed.
    ///
    /// # Errors
    /// Returns an error if a number of the record is not finite.
    pub fn of(record: Record) -> Result<Self> {
        record.check()?;
        let (json, text) = (serde_json::to_value(&record)?, text_of(&record));
        Ok(Self { records: vec![record], json, text })
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
    measure: &mut dyn FnMut(&Opened) -> Result<Measured>,
) -> Result<Outcome> {
    let paths = networks.paths()?;
    // Check the files of results before measuring, which may take hours.
    for folder in paths.iter().filter_map(|path| networks.folder_of_results(path)) {
        Results::read(&folder)?;
        writable(&folder).map_err(|error| {
            let folder = folder.display();
            Failure::failed(format!(
                "{folder}: cannot write the results here ({error}); choose another folder with \
                 --out"
            ))
        })?;
    }
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

fn measure_one(
    networks: &Networks,
    path: &Path,
    measure: &mut dyn FnMut(&Opened) -> Result<Measured>,
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
            [] => Ok(()),
            failed => Err(Failure::failed(format!("could not measure {}", failed.join(", ")))),
        }
    }
}

/// Formats a table with a row per record, its main score and those of the baselines, and with a row
/// per few-shot score.
pub fn table(records: &[&Record]) -> String {
    let score = |record: &Record, metric: &String, column: &str| {
        let metrics =
            record.columns().find(|(name, _)| *name == column).map(|(_, metrics)| metrics);
        let score = metrics.and_then(|metrics| metrics.get(metric));
        score.map_or_else(|| "-".to_owned(), |&score| percent(score, 1))
    };
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |v| format!("{v:.1}"));
    let head = ["protocol", "metric", "this network", "untrained", "raw pixels", "rank", "weights"];
    let mut rows = vec![head.map(str::to_owned)];
    let is_few_shot = |name: &&String| name.starts_with("shots") && name.ends_with("_top1");
    for record in records {
        let few_shot = record.metrics.keys().filter(is_few_shot);
        rows.extend(std::iter::once(&record.main).chain(few_shot).map(|metric| {
            [
                record.protocol.clone(),
                metric.clone(),
                score(record, metric, eval::record::THIS),
                score(record, metric, "untrained"),
                score(record, metric, "pixels"),
                number(record.effective_rank),
                record.weights.path.clone(),
            ]
        }));
    }
    aligned(&rows, &[0, 1, 6])
}

/// Formats all scores of a record.
pub fn text_of(record: &Record) -> String {
    let columns: Vec<_> = record.columns().collect();
    let head = std::iter::once(String::new());
    let mut rows: Vec<Vec<String>> =
        vec![head.chain(columns.iter().map(|(name, _)| (*name).to_owned())).collect()];
    for name in record.metrics.keys() {
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
    for name in ["recipe", "stride"] {
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
