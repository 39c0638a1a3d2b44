//! A text file that names image files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::labels::Labels;
use super::{Payload, Source, digest, extension, file_size, missing, read_file};
use crate::error::{Error, Result};

/// How many files are looked for when a list is opened, to catch a wrong base folder at once.
const PROBED: usize = 16;

/// The images of a list, in its order. Relative paths are relative to the list's folder.
///
/// - `.txt`: one path a line.
/// - `.csv`: a header with a `path` and, where there are labels, a `label` column; without such
///   a header, the path and optionally the label.
/// - `.jsonl`: one object a line, `{"path": "a.jpg", "label": "cat"}`; the label may be absent.
///
/// Empty lines are passed over. Labels are class numbers where all of them are whole numbers,
/// and names otherwise; an empty or negative label means none.
#[derive(Debug)]
pub struct List {
    base: PathBuf,
    files: Vec<String>,
    labels: Labels,
}

/// A path and its label as text.
type Row = (String, Option<String>);

impl List {
    /// Reads the list at `path`.
    ///
    /// # Errors
    /// The file does not exist, a line cannot be read, there is no line, or none of the first
    /// files named exists.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(missing(path));
        }
        let problem = |problem: String| Error::Path { path: path.into(), problem };
        let bytes = std::fs::read(path).map_err(|source| io(path, source))?;
        let text = String::from_utf8(bytes).map_err(|_| problem("not a UTF-8 text".into()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let rows = match extension(path).as_str() {
            "csv" => parse_csv(path, text)?,
            "jsonl" => parse_jsonl(path, text)?,
            "txt" => lines(text).map(|(_, line)| (line.to_owned(), None)).collect(),
            _ => return Err(problem("a list must end in .txt, .csv or .jsonl".into())),
        };
        if rows.is_empty() {
            return Err(problem("the list names no images".into()));
        }
        let base = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let (files, texts): (Vec<String>, Vec<Option<String>>) = rows.into_iter().unzip();
        if !files.iter().take(PROBED).any(|file| base.join(file).exists()) {
            return Err(problem(format!(
                "none of the first {} files it names exists (the first is {}): relative paths \
                 are relative to the list's folder",
                files.len().min(PROBED),
                base.join(&files[0]).display(),
            )));
        }
        Ok(Self { base, files, labels: Labels::from_texts(&texts) })
    }
}

impl Source for List {
    fn kind(&self) -> &'static str {
        "list"
    }

    fn len(&self) -> usize {
        self.files.len()
    }

    fn name(&self, index: usize) -> String {
        self.files.get(index).cloned().unwrap_or_default()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.labels.get(index).copied().flatten()
    }

    fn class_names(&self) -> &[String] {
        &self.labels.names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        let file = self.files.get(index).ok_or(Error::Index { index, len: self.len() })?;
        read_file(&self.base.join(file))
    }

    fn fingerprint(&self) -> String {
        let sizes: Vec<u64> =
            self.files.par_iter().map(|file| file_size(&self.base.join(file))).collect();
        digest((0..self.len()).map(|i| (self.name(i), self.label(i), sizes[i])))
    }
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { action: "read", path: path.into(), source }
}

/// Lines with text, trimmed, with their number from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    numbered.filter(|(_, line)| !line.is_empty())
}

fn parse_csv(path: &Path, text: &str) -> Result<Vec<Row>> {
    let mut reader =
        csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let (mut path_column, mut label_column) = (0, Some(1));
    let mut rows = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let list_error = |line: u64, problem: String| Error::List {
            path: path.into(),
            line: line as usize,
            problem,
        };
        let record = record.map_err(|error| {
            list_error(error.position().map_or(0, csv::Position::line), error.to_string())
        })?;
        let column =
            |name: &str| record.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
        if let (0, Some(found)) = (index, column("path")) {
            (path_column, label_column) = (found, column("label"));
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let field = |at: usize| record.get(at).map(str::trim).filter(|field| !field.is_empty());
        let file =
            field(path_column).ok_or_else(|| list_error(line, "the path is missing".into()))?;
        rows.push((file.to_owned(), label_column.and_then(field).map(str::to_owned)));
    }
    Ok(rows)
}

fn parse_jsonl(path: &Path, text: &str) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (number, line) in lines(text) {
        let problem = |problem: String| Error::List { path: path.into(), line: number, problem };
        let mut object: BTreeMap<String, serde_json::Value> = serde_json::from_str(line)
            .map_err(|error| problem(format!("not a JSON object: {error}")))?;
        let Some(serde_json::Value::String(file)) = object.remove("path") else {
            return Err(problem("no \"path\" with a text".into()));
        };
        let label = match object.remove("label") {
            None | Some(serde_json::Value::Null) => None,
            Some(serde_json::Value::String(name)) => Some(name),
            Some(serde_json::Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
            Some(other) => {
                return Err(problem(format!(
                    "\"label\" must be a name or a whole number: {other}"
                )));
            }
        };
        rows.push((file, label));
    }
    Ok(rows)
}
