//! The file `reproduce.json`: the results so far, so that they are not measured again, and the
//! table of all calls.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use eval::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trainer::files::write_atomic;

use crate::failure::{Context, Failure, Result};

use super::page::Line;
use super::row::Row;

/// A command that was run, and its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    pub row: String,
    pub measure: String,
    pub command: Vec<String>,
    /// Fingerprint of the weights when they were measured.
    pub fingerprint: String,
    pub record: Record,
}

/// The contents of the file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    finished: Vec<Finished>,
    /// The table, in the order of the paper.
    lines: Vec<Line>,
}

/// The version of simdino. Results of another version are not used.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Returns a command without the precision if it is fp32, which was not stated before it had
/// another default on a GPU.
fn plain(command: &[String]) -> Vec<&str> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.windows(2).position(|pair| pair == ["--precision", "fp32"]) {
        Some(place) => [&words[..place], &words[place + 2..]].concat(),
        None => words,
    }
}

impl Kept {
    /// Reads the file in `folder`; empty if there is no such file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("reproduce.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { path, finished: Vec::new(), lines: Vec::new() });
            }
            Err(error) => {
                return Err(error).context(|| format!("{}: cannot read the file", path.display()));
            }
        };
        let damaged = |error: serde_json::Error| {
            let path = path.display();
            Failure::failed(format!(
                "{path}: the file is damaged; delete it to measure everything again: {error}"
            ))
        };
        let mut entries: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(damaged)?;
        let finished = entries.remove("finished").unwrap_or_default();
        let finished = serde_json::from_value(finished).map_err(damaged)?;
        // The lines of another version are dropped, because its results have to be measured again.
        let lines =
            entries.remove("lines").filter(|_| entries.get("version") == Some(&VERSION.into()));
        let lines = lines.map(serde_json::from_value).transpose().map_err(damaged)?;
        Ok(Self { path, finished, lines: lines.unwrap_or_default() })
    }

    /// Returns the result of a command of this version with the same weights, if there is one. The
    /// data are assumed to be unchanged.
    pub fn find(&self, command: &[String], fingerprint: &str) -> Option<&Finished> {
        self.finished.iter().find(|one| {
            plain(&one.command) == plain(command)
                && one.fingerprint == fingerprint
                && one.record.version == VERSION
        })
    }

    /// Adds a result, which replaces an earlier one of the same command.
    pub fn put(&mut self, finished: Finished) {
        self.finished.retain(|one| one.command != finished.command);
        self.finished.push(finished);
    }

    /// Returns the table of all calls.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// Adds the lines of a measure to the table. They replace earlier ones unless `only_new`, for a
    /// call that failed, or lacks the weights or data that the earlier lines were measured with. The
    /// table is sorted in the order of `rows`, which are all rows of the paper.
    pub fn put_lines(&mut self, new: &[Line], only_new: bool, rows: &[Row]) {
        let same =
            |a: &Line, b: &Line| (&a.row, &a.measure, &a.metric) == (&b.row, &b.measure, &b.metric);
        for line in new {
            match self.lines.iter_mut().find(|old| same(old, line)) {
                Some(_) if only_new => {}
                Some(old) => *old = line.clone(),
                None => self.lines.push(line.clone()),
            }
        }
        let place = |line: &Line| {
            let row = rows.iter().position(|row| row.name == line.row)?;
            let measures = &rows[row].measures;
            let measure = measures.iter().position(|measure| measure.name == line.measure)?;
            let values = &measures[measure].values;
            Some([row, measure, values.iter().position(|value| value.metric == line.metric)?])
        };
        self.lines.sort_by_key(place);
    }

    /// Writes the file, and creates its folder if necessary.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn write(&self) -> Result<()> {
        let Self { lines, finished, .. } = self;
        let all = json!({"version": VERSION, "lines": lines, "finished": finished});
        let text = serde_json::to_string_pretty(&all)?;
        let what = || format!("{}: cannot write the file", self.path.display());
        self.path.parent().map_or(Ok(()), fs::create_dir_all).context(what)?;
        write_atomic(&self.path, (text + "\n").as_bytes()).context(what)
    }
}
