//! Parses the lines of a list, one at a time.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::super::is_image;
use super::columns::{self, Columns, First, first_line};
use super::fields::{Fields, read_line};
use super::json;
use super::rows::Rows;
use super::table::Table;
use crate::error::{Error, Result};

/// Maximum length of a path, and of a line of a `.txt` list, in bytes: far above any real path, and
/// too small to fill the memory.
const MAX_LINE_BYTES: usize = 64 << 10;
/// Maximum length of a line of a table or a `.jsonl` list, in bytes; columns other than the path may
/// contain anything.
const MAX_ROW_BYTES: usize = 16 << 20;
/// Number of characters of a line that a message shows.
const SHOWN: usize = 120;
/// The reason why a line with an unclosed quote is not used.
const UNCLOSED: &str = "a quote is not closed in this line";

/// The format of a list.
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
        Format::Csv | Format::Tsv => table_rows(path, reader, format, &mut rows)?,
    }
    rows.finish()
}

/// Reads the lines of a `.txt` list. A line that is not UTF-8 is kept; it is a broken image unless
/// a file has the lossily converted name.
fn text_rows(path: &Path, reader: impl BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let mut first = true;
    each_line(path, reader, MAX_LINE_BYTES, |number, line| {
        let line = String::from_utf8_lossy(line);
        let is_header = || columns::find(&[&*line]).is_some() && !is_file(path, &line);
        if !(std::mem::take(&mut first) && is_header()) {
            rows.push(number, &line, Ok(None));
        }
    })
}

fn json_rows(path: &Path, reader: impl BufRead, rows: &mut Rows<'_>) -> Result<()> {
    let mut first = true;
    each_line(path, reader, MAX_ROW_BYTES, |number, line| {
        // Invalid UTF-8 makes a label unreadable, but not a path.
        let is_text = std::str::from_utf8(line).is_ok();
        match json::row(&String::from_utf8_lossy(line)) {
            Ok(row) if row.file.len() > MAX_LINE_BYTES => {
                rows.lose(number, format!("the path is too long ({} bytes)", row.file.len()));
            }
            Ok(row) => {
                let label = match (&row.label, is_text) {
                    (Ok(Some(_)), false) => Err("not valid UTF-8".into()),
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

/// Returns whether a path, relative to the folder of the list, names a file.
fn is_file(list: &Path, file: &str) -> bool {
    list.parent().unwrap_or(Path::new("")).join(file).is_file()
}

/// Calls `row` for every non-empty line, with its number, from 1, and its trimmed bytes. A line may
/// have up to `most` bytes.
fn each_line(
    path: &Path,
    mut reader: impl BufRead,
    most: usize,
    mut row: impl FnMut(usize, &[u8]),
) -> Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut limited = std::io::Read::take(&mut reader, most as u64 + 1);
        let read = limited.read_until(b'\n', &mut line).map_err(|source| Error::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        if read == 0 {
            break;
        }
        if read > most {
            let problem = format!("longer than {most} bytes: is this a list of images?");
            return Err(Error::List { path: path.into(), line: number, problem });
        }
        let text = line.trim_ascii();
        if !text.is_empty() {
            row(number, text);
        }
    }
    Ok(())
}

/// How the lines of a table are split into fields.
#[derive(Clone, Copy)]
struct Dialect {
    delimiter: u8,
    quoting: bool,
}

impl Dialect {
    /// Determines the dialect from the first line. In a `.csv`, the delimiter is a comma, unless
    /// the line is a known header with a different delimiter. In a `.tsv`, quotes are ordinary
    /// characters, unless the line begins with one, which shows that the writer quotes every text.
    fn of(format: Format, first: &[u8]) -> Self {
        if format == Format::Tsv {
            return Self { delimiter: b'\t', quoting: first.starts_with(b"\"") };
        }
        let line = String::from_utf8_lossy(first);
        let is_header = |delimiter: &u8| {
            let names = line.split(char::from(*delimiter));
            let names: Vec<&str> = names.map(|name| name.trim().trim_matches('"')).collect();
            columns::find(&names).is_some()
        };
        let delimiter = [b',', b'\t', b';'].into_iter().find(is_header).unwrap_or(b',');
        Self { delimiter, quoting: true }
    }
}

/// What the first line determines for the other lines.
#[derive(Clone, Copy)]
struct Layout {
    dialect: Dialect,
    columns: Columns,
    /// Number of fields per line.
    width: usize,
}

fn table_rows(
    path: &Path,
    mut reader: impl BufRead,
    format: Format,
    rows: &mut Rows<'_>,
) -> Result<()> {
    let io = |source| Error::Io { action: "read", path: path.into(), source };
    let (mut line, mut fields, mut layout) = (Vec::new(), Fields::default(), None);
    for number in 1.. {
        if !read_line(&mut reader, &mut line, MAX_ROW_BYTES).map_err(io)? {
            break;
        }
        if line.len() > MAX_ROW_BYTES {
            let problem = format!("longer than {MAX_ROW_BYTES} bytes: is this a list of images?");
            return Err(rows.problem(number, problem));
        }
        if line.is_empty() {
            continue;
        }
        let dialect =
            layout.map_or_else(|| Dialect::of(format, &line), |Layout { dialect, .. }| dialect);
        let closed = fields.split(&line, dialect.delimiter, dialect.quoting);
        match layout {
            // Without the first line, the meaning of the other lines is unknown.
            None if !closed => return Err(rows.problem(number, UNCLOSED)),
            None => {
                let (known, is_header) = first_row(&fields, dialect, number, rows, path)?;
                layout = Some(known);
                if !is_header {
                    push(&fields, known, number, rows, path)?;
                }
            }
            Some(_) if !closed => rows.lose(number, UNCLOSED),
            Some(known) => push(&fields, known, number, rows, path)?,
        }
    }
    Ok(())
}

/// Returns what the first line determines for the other lines, and whether it is a header;
/// otherwise, it is an image.
fn first_row(
    fields: &Fields,
    dialect: Dialect,
    line: usize,
    rows: &mut Rows<'_>,
    path: &Path,
) -> Result<(Layout, bool)> {
    let names: Vec<_> = fields.iter().map(String::from_utf8_lossy).collect();
    let names: Vec<&str> = names.iter().map(|name| name.trim()).collect();
    if let Some(long) = names.iter().map(|name| name.len()).find(|&len| len > MAX_LINE_BYTES) {
        return Err(rows.problem(line, format!("a field has {long} bytes: is this a list?")));
    }
    match first_line(&names, |file| is_file(path, file)) {
        First::Image => {
            // The label may be missing in this line but present in others.
            let (columns, width) = (Columns { path: 0, label: Some(1) }, fields.len().max(2));
            Ok((Layout { dialect, columns, width }, false))
        }
        First::Header(columns) => {
            rows.notices.remarks.extend(columns::remark(&names, columns));
            Ok((Layout { dialect, columns, width: fields.len() }, true))
        }
        First::Unknown => {
            let shown: String = names.join(",").chars().take(SHOWN).collect();
            let tabs = if dialect.delimiter == b'\t' && names.len() == 1 {
                "; the fields of a .tsv file are separated by tabs, and this line has none"
            } else {
                ""
            };
            let problem = format!(
                "`{shown}` is not a known header and does not start with an image path: name the \
                 column of paths `path` or `file_name`, and the column of labels `label`{tabs}"
            );
            Err(rows.problem(line, problem))
        }
    }
}

/// Adds the image of a line.
///
/// If the line has more or fewer fields than the first one, for example because of an unquoted
/// comma, it is unclear which field is the label. The path is still certain if it is the first
/// field and names an image.
fn push(
    fields: &Fields,
    layout: Layout,
    line: usize,
    rows: &mut Rows<'_>,
    list: &Path,
) -> Result<()> {
    let Layout { columns, width, .. } = layout;
    let field =
        |at: usize| fields.get(at).map(<[u8]>::trim_ascii).filter(|field| !field.is_empty());
    let Some(file) = field(columns.path) else {
        rows.lose(line, "the path is missing");
        return Ok(());
    };
    if file.len() > MAX_LINE_BYTES {
        return Err(rows.problem(line, format!("the path is too long ({} bytes)", file.len())));
    }
    let file = String::from_utf8_lossy(file);
    let count = fields.len();
    // A lone path is an image without a label.
    let is_regular = count == width || (count, width) == (1, 2);
    if !is_regular {
        let why = format!("the number of fields is {count} instead of {width}");
        if columns.path == 0 && (is_image(Path::new(&*file)) || is_file(list, &file)) {
            let is_labeled = columns.label.is_some() && count > 1;
            rows.push(line, &file, if is_labeled { Err(why) } else { Ok(None) });
        } else {
            rows.lose(line, why);
        }
        return Ok(());
    }
    let label = columns.label.and_then(field).map(std::str::from_utf8).transpose();
    rows.push(line, &file, label.map_err(|_| "not valid UTF-8".to_owned()));
    Ok(())
}
