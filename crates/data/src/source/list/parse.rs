//! The lines of a list, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use csv::ByteRecord;

use super::columns::{self, Columns, First, first_line};
use super::json;
use super::rows::Rows;
use super::table::Table;
use crate::error::{Error, Result};

/// Longest line or field in bytes: far above any path, far below what would fill memory.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Characters of a line that a message shows.
const SHOWN: usize = 120;

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Text,
    Csv,
    Tsv,
    Jsonl,
}

/// Reads all lines of the list at `path`.
pub(super) fn read(path: &Path, format: Format) -> Result<Table> {
    let io = |source| Error::Io { action: "read", path: path.into(), source };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let start = reader.fill_buf().map_err(io)?;
    let is_utf16 = start.starts_with(&[0xFF, 0xFE]) || start.starts_with(&[0xFE, 0xFF]);
    if start.starts_with("\u{feff}".as_bytes()) {
        reader.consume(3);
    }
    let mut rows = Rows::new(path);
    if is_utf16 {
        return Err(rows.problem(1, "the text is UTF-16: save it as UTF-8"));
    }
    match format {
        Format::Text => text_rows(path, reader, &mut rows)?,
        Format::Jsonl => json_rows(path, reader, &mut rows)?,
        Format::Csv => {
            let delimiter = delimiter(reader.fill_buf().map_err(io)?);
            csv_rows(reader, delimiter, &mut rows, path)?;
        }
        Format::Tsv => csv_rows(reader, b'\t', &mut rows, path)?,
    }
    rows.finish()
}

/// A path that is not UTF-8 keeps its line, and is a broken image where no file has that name.
fn text_rows(path: &Path, reader: impl BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let mut first = true;
    each_line(path, reader, |number, line| {
        let line = String::from_utf8_lossy(line);
        let is_header = || columns::find(&[&*line]).is_some() && !is_file(path, &line);
        if !(std::mem::take(&mut first) && is_header()) {
            rows.push(number, &line, Ok(None));
        }
    })
}

fn json_rows(path: &Path, reader: impl BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let mut first = true;
    each_line(path, reader, |number, line| {
        // What is not UTF-8 spoils a label, not a path.
        let is_text = std::str::from_utf8(line).is_ok();
        match json::row(&String::from_utf8_lossy(line)) {
            Ok(row) => {
                let label = match (&row.label, is_text) {
                    (Ok(Some(_)), false) => Err("not a UTF-8 text".into()),
                    (label, _) => label.as_ref().map(Option::as_deref).map_err(String::clone),
                };
                rows.push(number, &row.file, label);
                if std::mem::take(&mut first) {
                    let keys: Vec<&str> = row.keys.iter().map(String::as_str).collect();
                    let found = Columns { path: row.path, label: columns::label(&keys) };
                    rows.notices.remarks.extend(columns::remark(&keys, found));
                }
            }
            Err(problem) => rows.lose(number, problem),
        }
    })
}

/// Whether a path, relative to the list's folder, names a file.
fn is_file(list: &Path, file: &str) -> bool {
    list.parent().unwrap_or(Path::new("")).join(file).is_file()
}

/// Calls `row` with the number, from 1, and the trimmed bytes of every line that has any.
fn each_line(
    path: &Path,
    mut reader: impl BufRead,
    mut row: impl FnMut(usize, &[u8]),
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
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
            let problem = format!("longer than {MAX_LINE_BYTES} bytes: is this a list of images?");
            return Err(Error::List { path: path.into(), line: number, problem });
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            row(number, text);
        }
    }
    Ok(())
}

/// What divides the fields: a comma, unless the first line is a known header with something else.
fn delimiter(start: &[u8]) -> u8 {
    let line = start.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let is_header = |delimiter: &u8| {
        let names: Vec<&str> =
            line.split(char::from(*delimiter)).map(|name| name.trim().trim_matches('"')).collect();
        columns::find(&names).is_some()
    };
    [b',', b'\t', b';'].into_iter().find(is_header).unwrap_or(b',')
}

fn csv_rows(reader: impl BufRead, delimiter: u8, rows: &mut Rows<'_>, path: &Path) -> Result<()> {
    let mut builder = csv::ReaderBuilder::new();
    let mut reader =
        builder.has_headers(false).flexible(true).delimiter(delimiter).from_reader(reader);
    let mut columns = None;
    let mut record = ByteRecord::new();
    loop {
        let more = reader.read_byte_record(&mut record).map_err(|error| {
            let line = error.position().map_or(0, csv::Position::line);
            rows.problem(line as usize, error.to_string())
        })?;
        if !more {
            return Ok(());
        }
        let line = record.position().map_or(0, csv::Position::line) as usize;
        let columns = match columns {
            Some(columns) => columns,
            None => match first_record(&record, line, rows, path)? {
                Some(named) => {
                    columns = Some(named);
                    continue;
                }
                None => *columns.insert(Columns { path: 0, label: Some(1) }),
            },
        };
        push(&record, columns, line, rows)?;
    }
}

/// The columns that the first line names; none if it is an image.
fn first_record(
    record: &ByteRecord,
    line: usize,
    rows: &mut Rows<'_>,
    path: &Path,
) -> Result<Option<Columns>> {
    let fields: Vec<_> = record.iter().map(String::from_utf8_lossy).collect();
    let fields: Vec<&str> = fields.iter().map(|field| field.trim()).collect();
    if let Some(long) = fields.iter().map(|field| field.len()).find(|&len| len > MAX_LINE_BYTES) {
        return Err(rows.problem(line, format!("a field has {long} bytes: is this a list?")));
    }
    match first_line(&fields, |file| is_file(path, file)) {
        First::Image => Ok(None),
        First::Header(columns) => {
            rows.notices.remarks.extend(columns::remark(&fields, columns));
            Ok(Some(columns))
        }
        First::Unknown => {
            let shown: String = fields.join(",").chars().take(SHOWN).collect();
            let problem = format!(
                "`{shown}` is neither a header that is understood nor does it begin with an image: \
                 call the column of the paths `path` or `file_name`, and that of the labels `label`"
            );
            Err(rows.problem(line, problem))
        }
    }
}

fn push(record: &ByteRecord, columns: Columns, line: usize, rows: &mut Rows<'_>) -> Result<()> {
    let field =
        |at: usize| record.get(at).map(<[u8]>::trim_ascii).filter(|field| !field.is_empty());
    let Some(file) = field(columns.path) else {
        rows.lose(line, "the path is missing");
        return Ok(());
    };
    if file.len() > MAX_LINE_BYTES {
        return Err(rows.problem(line, format!("the path has {} bytes", file.len())));
    }
    let label = columns.label.and_then(field).map(std::str::from_utf8).transpose();
    let label = label.map_err(|_| "not a UTF-8 text".to_owned());
    rows.push(line, &String::from_utf8_lossy(file), label);
    Ok(())
}
