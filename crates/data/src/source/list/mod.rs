//! A text file that names image files.

mod cache;
mod columns;
mod fields;
mod json;
mod parse;
mod rows;
mod table;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::cache::Key;
use self::parse::Format;
use self::table::Table;
use super::names::Names;
use super::notices::Notices;
use super::{Payload, Source, digest, extension, file_size, missing, read_file};
use crate::error::{Error, Result};
use crate::storage::plain_file;

/// How many files are looked for when a list is opened, to catch a wrong base folder at once.
const PROBED: usize = 16;

/// The images of a list, in its order. Relative paths are relative to the list's folder.
///
/// - `.txt`: one path a line.
/// - `.csv`, `.tsv`: a header that names the column of the paths (`path`, `file_name`, `image`, ...) and,
///   where there are labels, theirs (`label`, `class`, ...); without a header, the path and optionally
///   the label. A first line that is neither a known header nor begins with an image is an error.
///   A line is a row: a quoted field cannot go on in the next one. A line with another number of fields
///   than the first has no label, and no image unless its path is the first field.
/// - `.jsonl`: one object a line, `{"path": "a.jpg", "label": "cat"}`, with the same names of keys; the
///   label may be absent.
///
/// `metadata.csv` and `metadata.jsonl` of the library `datasets` are such lists. Empty lines are passed
/// over. Labels are class numbers where all of them are whole numbers, and names otherwise; an empty or
/// negative label means none. A line or a label that cannot be read costs no other one: it is counted
/// and named ([`Notices`]).
///
/// In memory an image takes its path and 8 bytes, and 4 more with labels. What was read from a
/// large list is kept in `.NAME.index` beside it, if that can be written.
#[derive(Debug)]
pub struct List {
    base: PathBuf,
    table: Table,
}

impl List {
    /// Reads the list at `path`, or what was kept of it.
    ///
    /// # Errors
    /// The file does not exist, its header is not understood, no line can be used, or none of the
    /// first files named exists.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(missing(path));
        }
        let problem = |problem: String| Error::Path { path: path.into(), problem };
        let format = match extension(path).as_str() {
            "csv" => Format::Csv,
            "tsv" => Format::Tsv,
            "jsonl" => Format::Jsonl,
            "txt" => Format::Text,
            _ => return Err(problem("a list must end in .txt, .csv, .tsv or .jsonl".into())),
        };
        plain_file(path, "open")?;
        let key = Key::of(path);
        let table = match key.and_then(|key| cache::load(path, key)) {
            Some(table) => table,
            None => {
                let table = parse::read(path, format)?;
                if let Some(key) = key {
                    cache::store(path, key, &table);
                }
                table
            }
        };
        let base = path.parent().unwrap_or(Path::new("")).to_path_buf();
        let probed = table.names.len().min(PROBED);
        let Some(first) = table.names.get(0) else {
            return Err(problem("the list names no images".into()));
        };
        let exists = |index| table.names.get(index).is_some_and(|file| base.join(file).exists());
        if !(0..probed).any(exists) {
            return Err(problem(format!(
                "none of the first {probed} files it names exists (the first is {}): relative \
                 paths are relative to the list's folder",
                base.join(first).display(),
            )));
        }
        Ok(Self { base, table })
    }

    /// The images at `paths`, without labels.
    pub fn of_files(paths: &[PathBuf]) -> Self {
        let mut names = Names::default();
        paths.iter().for_each(|path| names.push(&path.to_string_lossy()));
        let (classes, class_names) = (Vec::new(), Vec::new());
        let table = Table { names, classes, class_names, notices: Notices::default() };
        Self { base: PathBuf::new(), table }
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.table.names.get(index).map(|file| self.base.join(file))
    }
}

impl Source for List {
    fn kind(&self) -> &'static str {
        "list"
    }

    fn len(&self) -> usize {
        self.table.names.len()
    }

    fn name(&self, index: usize) -> String {
        self.table.names.get(index).unwrap_or_default().to_owned()
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.table.classes.get(index).copied().filter(|&class| class != Table::UNLABELED)
    }

    fn class_names(&self) -> &[String] {
        &self.table.class_names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        read_file(&self.path(index).ok_or(Error::Index { index, len: self.len() })?)
    }

    fn notices(&self) -> Notices {
        self.table.notices.clone()
    }

    fn fingerprint(&self) -> String {
        let size = |index| self.path(index).map_or(0, |path| file_size(&path));
        let sizes: Vec<u64> = (0..self.len()).into_par_iter().map(size).collect();
        digest((0..self.len()).map(|i| (self.name(i), self.label(i), sizes[i])))
    }
}
