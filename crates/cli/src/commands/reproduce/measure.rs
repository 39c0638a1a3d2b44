//! Runs the commands for which data and weights are given.

use std::path::{Path, PathBuf};

use clap::Parser;
use eval::record::Record;
use serde_json::Value as Json;
use trainer::files::read_json;
use trainer::metrics::read_jsonl;

use crate::commands::eval as evaluation;
use crate::console::note;
use crate::failure::{Failure, Result};
use crate::shell::typed;

use super::kept::{Finished, Kept};
use super::networks::{AllGiven, Given, Identity, identify};
use super::page::{Here, Line, lines};
use super::paper;
use super::plan::Folders;
use super::row::{How, Measure, Row};

/// The given data and weights, and the folder for results.
pub struct Task<'a> {
    pub folders: &'a Folders,
    pub given: &'a AllGiven,
    pub out: &'a Path,
    /// Options that are passed to all evaluations.
    pub options: Vec<String>,
    /// Whether to measure again what has been measured.
    pub again: bool,
}

/// A parser for `simdino eval` alone.
#[derive(Debug, Parser)]
#[command(name = "simdino eval", no_binary_name = true)]
struct EvalLine {
    #[command(flatten)]
    args: evaluation::Args,
}

/// What [`all`] returns.
pub struct Tables {
    /// The lines of this call.
    pub here: Vec<Line>,
    /// The lines of all calls.
    pub all: Vec<Line>,
    /// Whether everything that could be measured was.
    pub complete: bool,
}

/// Measures all rows as far as data and weights are given, and returns the tables. A measure that
/// fails becomes a line with the reason.
///
/// # Errors
/// Returns an error if an option is invalid or the file of results cannot be read or written.
pub fn all(rows: &[Row], measures: &dyn Fn(&Measure) -> bool, task: &Task<'_>) -> Result<Tables> {
    let paper = paper::rows();
    let mut kept = Kept::read(task.out)?;
    let pairs: Vec<(&Row, &Measure)> = rows
        .iter()
        .flat_map(|row| {
            row.measures.iter().filter(|m| measures(m)).map(move |measure| (row, measure))
        })
        .collect();
    for (row, measure) in &pairs {
        // Invalid options should be reported before the first measurement, which may take hours.
        if let Some(command) = task.command(row, measure) {
            parse(&command)?;
        }
    }
    let (mut found, mut complete): (Vec<Line>, bool) = (Vec::new(), true);
    for (row, measure) in pairs {
        let here = task.here(row, measure, &mut kept);
        let measured = here.is_ok() && task.is_at_hand(row, measure);
        let here = here.unwrap_or_else(|failure| {
            let why = failure.lines().join("; ");
            note(&format!("warning: {}, {}: {why}", row.name, measure.name));
            complete = false;
            Here { but: Some(format!("failed: {why}")), ..Here::default() }
        });
        let new: Vec<Line> = lines(row, measure, &here).collect();
        kept.put_lines(&new, !measured, &paper);
        found.extend(new);
        // Save now, because the next measurement may take hours.
        kept.write()?;
    }
    Ok(Tables { here: found, all: kept.lines().to_vec(), complete })
}

impl Task<'_> {
    fn given(&self, row: &Row) -> Option<&Given> {
        self.given.get(row.network?)
    }

    /// Returns whether the weights and data for a measure are given.
    fn is_at_hand(&self, row: &Row, measure: &Measure) -> bool {
        self.given(row).is_some() && measure.missing(self.folders).is_empty()
    }

    /// Returns the command of a measure, without `simdino`; `None` if weights or data are missing,
    /// or the measure is a curve.
    fn command(&self, row: &Row, measure: &Measure) -> Option<Vec<String>> {
        let given = self.given(row)?;
        if !measure.missing(self.folders).is_empty() {
            return None;
        }
        let mut command = measure.command(&given.path.display().to_string(), self.folders)?;
        command.extend(self.options.iter().cloned());
        command.extend(["--out".to_owned(), self.out.join("results").display().to_string()]);
        if ["knn", "linear"].contains(&command[1].as_str()) {
            let features = self.out.join("features").display().to_string();
            command.extend(["--features".to_owned(), features]);
        }
        Some(command)
    }

    fn here(&self, row: &Row, measure: &Measure, kept: &mut Kept) -> Result<Here> {
        let but = |why: String| Ok(Here { but: Some(why), ..Here::default() });
        let Some(given) = self.given(row) else {
            return but("no weights".to_owned());
        };
        let missing = measure.missing(self.folders);
        if !missing.is_empty() {
            return but(format!("needs --data {}=FOLDER", missing.join("=FOLDER --data ")));
        }
        let identity = identify(row, given)?;
        let mut here = match self.command(row, measure) {
            Some(command) => {
                let record = self.record(row, measure, &command, &identity, kept)?;
                let scores = record.metrics.iter().map(|(name, score)| (name.clone(), *score));
                let but = tested(&record).and_then(|found| other_data(measure, found));
                Here { scores: scores.collect(), but, released: given.released }
            }
            None => curve(&given.path, measure)?,
        };
        here.but =
            [identity.unfit, here.but].into_iter().flatten().reduce(|a, b| format!("{a}; {b}"));
        Ok(here)
    }

    fn record(
        &self,
        row: &Row,
        measure: &Measure,
        command: &[String],
        identity: &Identity,
        kept: &mut Kept,
    ) -> Result<Record> {
        let known = kept.find(command, &identity.fingerprint).filter(|_| !self.again);
        if let Some(known) = known {
            return Ok(known.record.clone());
        }
        note(&format!("{}, {}: {}", row.name, measure.name, typed(command)));
        let outcome = evaluation::measure(&parse(command)?)?;
        let record =
            outcome.records().next().cloned().ok_or_else(|| {
                Failure::failed(format!("{}: nothing was measured", measure.name))
            })?;
        kept.put(Finished {
            row: row.name.clone(),
            measure: measure.name.to_owned(),
            command: command.to_vec(),
            fingerprint: identity.fingerprint.clone(),
            record: record.clone(),
        });
        Ok(record)
    }
}

/// Parses a command that begins with `eval`.
fn parse(command: &[String]) -> Result<evaluation::Args> {
    let line = EvalLine::try_parse_from(&command[1..]);
    Ok(line.map_err(|error| Failure::usage(error.to_string().trim().to_owned()))?.args)
}

/// Returns the number of test images or of sequences of a record, and which of the two it is.
fn tested(record: &Record) -> Option<(usize, &'static str)> {
    if let Some(sequences) = record.settings.get("sequences").and_then(Json::as_u64) {
        return Some((usize::try_from(sequences).ok()?, "sequences"));
    }
    record.data.iter().find(|data| data.role == "test").map(|data| (data.images, "test images"))
}

/// Returns why the data are not those of the paper, if their number differs.
fn other_data(measure: &Measure, (found, unit): (usize, &str)) -> Option<String> {
    let expected = measure.tests;
    (expected != found).then(|| format!("{found} {unit} instead of {expected}"))
}

/// Reads the k-NN accuracy of a run at the epochs that the metrics are named after.
fn curve(run: &Path, measure: &Measure) -> Result<Here> {
    debug_assert_eq!(measure.how, How::Curve);
    let Ok(records) = read_jsonl(&run.join("metrics.jsonl")) else {
        let why =
            format!("{} is not a run, and this row needs the k-NN curve of one", run.display());
        return Ok(Here { but: Some(why), ..Here::default() });
    };
    let points = records.iter().filter_map(|record| {
        record.get("probe/knn_top1").filter(|knn| knn.is_finite()).map(|knn| (record.epoch, knn))
    });
    let points: Vec<(f64, f64)> = points.collect();
    let at = |epoch: f64| points.iter().rev().find(|(at, _)| (at - epoch).abs() < 0.05);
    let scores = measure.values.iter().filter_map(|value| {
        let (_, score) = at(value.metric.parse().ok()?)?;
        Some((value.metric.to_owned(), *score))
    });
    let scores: Vec<(String, f64)> = scores.collect();
    let results: Option<Json> = read_json(&run.join("results.json")).ok();
    let found = results.and_then(|results| results["knn"]["num_test"].as_u64());
    let but = match found {
        None => Some("the run is not finished".to_owned()),
        Some(found) => other_data(measure, (usize::try_from(found).unwrap_or(0), "test images")),
    };
    Ok(Here { scores, but, released: false })
}

/// Returns the path of the table.
pub fn page(out: &Path) -> PathBuf {
    out.join("reproduce.md")
}

#[cfg(test)]
mod tests {
    use eval::record::DataUsed;

    use super::*;
    use crate::commands::reproduce::paper::rows;

    #[test]
    fn fewer_data_than_in_the_paper_are_said() {
        let rows = rows();
        let video = rows.iter().flat_map(|row| &row.measures).find(|of| of.name == "davis2017");
        let mut record = Record::default();
        record.data.push(DataUsed::of_files("test", Path::new("frames"), String::new(), 160));
        assert_eq!(tested(&record), Some((160, "test images")));
        record.set("sequences", 3);
        let said = other_data(video.unwrap(), tested(&record).unwrap());
        assert_eq!(said.unwrap(), "3 sequences instead of 30");
    }
}
