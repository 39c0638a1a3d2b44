//! A text file that names image files.

mod cache;
mod parse;
mod table;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use self::cache::Key;
use self::parse::Format;
use self::table::Table;
use super::names::Names;
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
    /// The file does not exist, a line cannot be read, there is no line, or none of the first
    /// files named exists.
    pub fn open(path: &Path) -> Result<Self> {
        if !path.exists() {
            return Err(missing(path));
        }
        let problem = |problem: String| Error::Path { path: path.into(), problem };
        let format = match extension(path).as_str() {
            "csv" => Format::Csv,
            "jsonl" => Format::Jsonl,
            "txt" => Format::Text,
            _ => return Err(problem("a list must end in .txt, .csv or .jsonl".into())),
        };
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
        let table = Table { names, classes: Vec::new(), class_names: Vec::new() };
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
        self.table.classes.get(index).copied().filter(|&class| class != Table::UNLABELLED)
    }

    fn class_names(&self) -> &[String] {
        &self.table.class_names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        read_file(&self.path(index).ok_or(Error::Index { index, len: self.len() })?)
    }

    fn fingerprint(&self) -> String {
        let size = |index| self.path(index).map_or(0, |path| file_size(&path));
        let sizes: Vec<u64> = (0..self.len()).into_par_iter().map(size).collect();
        digest((0..self.len()).map(|i| (self.name(i), self.label(i), sizes[i])))
    }
}
