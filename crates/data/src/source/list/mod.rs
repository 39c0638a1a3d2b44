//! A text file that names image files.

mod cache;
mod columns;
mod fields;
mod json;
mod parse;
mod rows;
mod table;

use std::collections::HashMap;
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

/// Number of files whose existence is checked when a list is opened, to detect a wrong base folder
/// immediately.
const PROBED: usize = 16;

/// The images of a list, in order. Relative paths are relative to the folder of the list.
///
/// - `.txt`: one path per line.
/// - `.csv`, `.tsv`: a header that names the path column (`path`, `file_name`, `image`, ...) and,
///   if there are labels, the label column (`label`, `class`, ...); without a header, the first
///   field is the path and the second, if present, the label. It is an error if the first line is
///   not a known header and does not begin with an image. Each line is a row, so a quoted field
///   cannot continue on the next line. A line whose number of fields differs from that of the first
///   line has no label, and is skipped unless its path is the first field.
/// - `.jsonl`: one object per line, `{"path": "a.jpg", "label": "cat"}`, with the same names as
///   keys; the label is optional.
///
/// `metadata.csv` and `metadata.jsonl` of the `datasets` library are such lists. Empty lines are
/// skipped. Labels are class numbers if all of them are integers, and names otherwise; an empty or
/// negative label means that there is none. An unusable line or label affects no other line; it is
/// counted and reported ([`Notices`]).
///
/// In memory, an image takes 8 bytes in addition to its path, and 4 more if there are labels. The
/// parsed contents of a large list are cached in `.NAME.index` next to it, if that is writable.
#[derive(Debug)]
pub struct List {
    base: PathBuf,
    table: Table,
    /// Original paths of [`List::of_files`] that are not UTF-8, by index.
    odd: HashMap<usize, PathBuf>,
}

impl List {
    /// Opens the list at `path`, from its cache if there is a valid one.
    ///
    /// # Errors
    /// Returns an error if the file does not exist, has an unknown extension, or contains no usable
    /// line; if its first line is not recognized; or if none of the first files that it names
    /// exists.
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
            return Err(problem("the list contains no images".into()));
        };
        let exists = |index| table.names.get(index).is_some_and(|file| base.join(file).exists());
        if !(0..probed).any(exists) {
            return Err(problem(format!(
                "none of the first {probed} files it lists exists (the first is {}): relative \
                 paths start at the folder of the list",
                base.join(first).display(),
            )));
        }
        Ok(Self { base, table, odd: HashMap::new() })
    }

    /// Creates a list of the images at `paths`, without labels.
    pub fn of_files(paths: &[PathBuf]) -> Self {
        let mut names = Names::default();
        paths.iter().for_each(|path| names.push(&path.to_string_lossy()));
        let odd = paths.iter().enumerate().filter(|(_, path)| path.to_str().is_none());
        let odd = odd.map(|(index, path)| (index, path.clone())).collect();
        let (classes, class_names) = (Vec::new(), Vec::new());
        let table = Table { names, classes, class_names, notices: Notices::default() };
        Self { base: PathBuf::new(), table, odd }
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        let odd = self.odd.get(&index).map(PathBuf::as_path);
        let path = odd.or_else(|| self.table.names.get(index).map(Path::new))?;
        Some(self.base.join(path))
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
