//! Which files a path means: one file, a folder of them, or a pattern.

use std::path::{Path, PathBuf};

use super::missing;
use crate::error::{Error, Result};

/// A kind of file that holds many images.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileKind {
    /// What such files are called, for messages.
    pub(super) what: &'static str,
    /// How their names end.
    pub(super) ends: &'static [&'static str],
}

/// Tar shards.
pub(super) const SHARDS: FileKind = FileKind { what: "shards", ends: &[".tar", ".tar.gz", ".tgz"] };
/// Parquet files.
pub(super) const PARQUET: FileKind = FileKind { what: "parquet files", ends: &[".parquet"] };

impl FileKind {
    /// Whether the name is one of this kind.
    pub(super) fn is(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        self.ends.iter().any(|end| name.ends_with(end)) && !name.starts_with('.')
    }

    /// Whether such a file lies directly in the folder.
    pub(super) fn any_in(&self, folder: &Path) -> Result<bool> {
        Ok(!in_folder(folder, "*", *self)?.is_empty())
    }

    /// The files that `path` means, sorted by name.
    pub(super) fn find(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let problem = |problem: String| Error::Path { path: path.into(), problem };
        let (what, ends) = (self.what, self.ends.join(", "));
        if path.is_dir() {
            let found = in_folder(path, "*", *self)?;
            let none = || problem(format!("no {what} ({ends}) directly in this folder"));
            return if found.is_empty() { Err(none()) } else { Ok(found) };
        }
        if path.is_file() {
            return Ok(vec![path.into()]);
        }
        let pattern = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !pattern.contains('*') {
            return Err(missing(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if folder.to_string_lossy().contains('*') {
            return Err(problem("`*` may stand in the last part of the path only".into()));
        }
        if !folder.is_dir() {
            return Err(missing(folder));
        }
        let found = in_folder(folder, &pattern, *self)?;
        if found.is_empty() {
            return Err(problem(format!("no file ({ends}) matches this pattern")));
        }
        Ok(found)
    }
}

fn in_folder(folder: &Path, pattern: &str, kind: FileKind) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { action: "list", path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if kind.is(&path) && matches(pattern, &name) && path.is_file() {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether `name` matches `pattern`, in which `*` stands for any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    ends.into_iter().any(|at| matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("a-*.tar", "a-0001.tar", true),
            ("a-*.tar", "a-.tar", true),
            ("a-*.tar", "a-0001.tar.gz", false),
            ("*", "anything", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("a", "a", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
