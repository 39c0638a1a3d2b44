//! The lines of a list, one at a time: nothing but names and labels stays in memory.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::super::labels::Labels;
use super::super::names::Names;
use super::Table;
use crate::error::{Error, Result};

/// Longest line or field in bytes: far above any path, far below what would fill memory.
const MAX_LINE_BYTES: usize = 64 << 10;
/// "No label" among the numbers of label texts.
const NONE: u32 = u32::MAX;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Csv,
    Jsonl,
}

/// Reads all lines of the list at `path`.
pub(super) fn read(path: &Path, format: Format) -> Result<Table> {
    let io = |source| Error::Io { action: "read", path: path.into(), source };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    if reader.fill_buf().map_err(io)?.starts_with("\u{feff}".as_bytes()) {
        reader.consume(3);
    }
    let mut rows =
        Rows { path, names: Names::default(), labels: Vec::new(), texts: HashMap::new() };
    match format {
        Format::Text => each_line(path, reader, |number, line| rows.push(number, line, None))?,
        Format::Jsonl => each_line(path, reader, |number, line| {
            let (file, label) = json_row(line).map_err(|problem| rows.problem(number, problem))?;
            rows.push(number, &file, label.as_deref())
        })?,
        Format::Csv => csv_rows(reader, &mut rows)?,
    }
    Ok(rows.finish())
}

/// The rows so far; a label is the number of its text.
struct Rows<'a> {
    path: &'a Path,
    names: Names,
    labels: Vec<u32>,
    texts: HashMap<String, u32>,
}

impl Rows<'_> {
    fn problem(&self, line: usize, problem: impl Into<String>) -> Error {
        Error::List { path: self.path.into(), line, problem: problem.into() }
    }

    fn push(&mut self, line: usize, file: &str, label: Option<&str>) -> Result<()> {
        if file.contains('\0') {
            return Err(self.problem(line, "the path has a NUL byte"));
        }
        if file.len() > MAX_LINE_BYTES {
            return Err(self.problem(line, format!("the path has {} bytes", file.len())));
        }
        self.names.push(file);
        let next = self.texts.len() as u32;
        let number = match label {
            None => NONE,
            Some(label) => match self.texts.get(label) {
                Some(&number) => number,
                None => *self.texts.entry(label.to_owned()).or_insert(next),
            },
        };
        self.labels.push(number);
        Ok(())
    }

    fn finish(mut self) -> Table {
        self.names.shrink();
        let mut texts: Vec<(String, u32)> = self.texts.into_iter().collect();
        texts.sort_unstable_by_key(|(_, number)| *number);
        let texts: Vec<Option<String>> = texts.into_iter().map(|(text, _)| Some(text)).collect();
        let Labels { labels: classes, names: class_names } = Labels::from_texts(&texts);
        if classes.iter().all(Option::is_none) {
            return Table { names: self.names, classes: Vec::new(), class_names };
        }
        let class = |number: u32| classes.get(number as usize).copied().flatten();
        let mut classes: Vec<u32> =
            self.labels.iter().map(|&number| class(number).unwrap_or(Table::UNLABELLED)).collect();
        classes.shrink_to_fit();
        Table { names: self.names, classes, class_names }
    }
}

/// Calls `row` with the number, from 1, and the trimmed text of every line that has any.
fn each_line(
    path: &Path,
    mut reader: impl BufRead,
    mut row: impl FnMut(usize, &str) -> Result<()>,
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let problem = |problem: String| Error::List { path: path.into(), line: number, problem };
        let mut limited = std::io::Read::take(&mut reader, MAX_LINE_BYTES as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(|source| Error::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        if read == 0 {
            break;
        }
        if read > MAX_LINE_BYTES {
            let text = format!("longer than {MAX_LINE_BYTES} bytes: is this a list of images?");
            return Err(problem(text));
        }
        let text = std::str::from_utf8(&line).map_err(|_| problem("not a UTF-8 text".into()))?;
        let text = text.trim();
        if !text.is_empty() {
            row(number, text)?;
        }
    }
    Ok(())
}

fn csv_rows(reader: impl BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(reader);
    let (mut path_column, mut label_column) = (0, Some(1));
    let mut record = csv::StringRecord::new();
    let mut first = true;
    loop {
        let more = reader.read_record(&mut record).map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            rows.problem(line as usize, error.to_string())
        })?;
        if !more {
            return Ok(());
        }
        let column =
            |name: &str| record.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
        if let (true, Some(found)) = (first, column("path")) {
            (path_column, label_column) = (found, column("label"));
            first = false;
            continue;
        }
        first = false;
        let line = record.position().map_or(0, csv::Position::line) as usize;
        let field = |at: usize| record.get(at).map(str::trim).filter(|field| !field.is_empty());
        let Some(file) = field(path_column) else {
            return Err(rows.problem(line, "the path is missing"));
        };
        rows.push(line, file, label_column.and_then(field))?;
    }
}

/// Path and label of a line of JSON, or what is wrong with it.
fn json_row(line: &str) -> std::result::Result<(String, Option<String>), String> {
    let mut object: BTreeMap<String, serde_json::Value> =
        serde_json::from_str(line).map_err(|error| format!("not a JSON object: {error}"))?;
    let Some(serde_json::Value::String(file)) = object.remove("path") else {
        return Err("no \"path\" with a text".into());
    };
    let label = match object.remove("label") {
        None | Some(serde_json::Value::Null) => None,
        Some(serde_json::Value::String(name)) => Some(name),
        Some(serde_json::Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        Some(other) => return Err(format!("\"label\" must be a name or a whole number: {other}")),
    };
    Ok((file, label))
}
