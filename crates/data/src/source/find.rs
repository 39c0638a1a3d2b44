//! Resolves a path to files, local or remote: a single file, a folder of files, or a pattern.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::braces::expand;
use super::missing;
use super::notices::Notices;
use crate::config::DataConfig;
use crate::error::{Error, Result};
use crate::storage::{Blob, LocalFile, plain_file};

/// Number of remote objects that are opened at a time.
#[cfg(feature = "remote")]
const REQUESTS: usize = 32;

/// Returns whether the path is the URL of a remote object.
pub(super) fn is_address(path: &str) -> bool {
    path.contains("://")
}

/// Runs `work`, which opens files in parallel. For remote files, it runs on threads that mostly
/// wait, so there may be more of them than cores.
pub(super) fn together<T: Send>(config: &DataConfig, work: impl FnOnce() -> T + Send) -> Result<T> {
    #[cfg(feature = "remote")]
    if is_address(config.path_text()) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(REQUESTS).build();
        let pool = pool.map_err(|error| Error::Worker { message: error.to_string() })?;
        return Ok(pool.install(work));
    }
    let _ = config; // only used for remote files
    Ok(work())
}

/// A kind of file that contains many images.
#[derive(Debug, Clone, Copy)]
pub(super) struct FileKind {
    /// What such files are called in messages.
    pub(super) what: &'static str,
    /// Suffixes of such files, in lower case.
    pub(super) ends: &'static [&'static str],
}

/// Tar shards.
pub(super) const SHARDS: FileKind = FileKind { what: "shards", ends: &[".tar", ".tar.gz", ".tgz"] };
/// Suffixes of the files that `simdino data pack` and `simdino data index` write next to shards.
const PACKED: [&str; 2] = [".index", "pack.json"];
/// Parquet files.
pub(super) const PARQUET: FileKind = FileKind { what: "parquet files", ends: &[".parquet"] };

impl FileKind {
    /// Returns whether the path is named like a file of this kind.
    pub(super) fn is(&self, path: &Path) -> bool {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        self.ends.iter().any(|end| name.ends_with(end)) && !name.starts_with('.')
    }

    /// Returns whether the folder directly contains such a file.
    pub(super) fn any_in(&self, folder: &Path) -> Result<bool> {
        Ok(!in_folder(folder, "*", *self)?.is_empty())
    }

    /// Opens the files that `data.path` stands for, in the order of [`Self::find`]. For a folder,
    /// also reports what else it contains.
    pub(super) fn open(&self, config: &DataConfig) -> Result<(Vec<Box<dyn Blob>>, Notices)> {
        if is_address(config.path_text()) {
            return Ok((self.open_remote(config)?, Notices::default()));
        }
        let path = Path::new(config.path_text());
        let notices = if path.is_dir() { self.others_in(path)? } else { Notices::default() };
        Ok((self.open_local(&self.find(path)?)?, notices))
    }

    fn open_local(&self, paths: &[PathBuf]) -> Result<Vec<Box<dyn Blob>>> {
        let open =
            |path: &PathBuf| LocalFile::open(path).map(|file| Box::new(file) as Box<dyn Blob>);
        let files: Vec<Result<Box<dyn Blob>>> = paths.par_iter().map(open).collect();
        files.into_iter().collect()
    }

    /// Reports the entries of the folder that are not files of this kind or cannot be opened.
    /// Hidden files, subfolders, and files that `simdino data pack` and `simdino data index` wrote
    /// are not reported.
    fn others_in(&self, folder: &Path) -> Result<Notices> {
        let mut notices = Notices::default();
        for path in entries(folder)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let about = std::fs::metadata(&path);
            let is_folder = about.as_ref().is_ok_and(std::fs::Metadata::is_dir);
            if name.starts_with('.') || is_folder || PACKED.iter().any(|end| name.ends_with(end)) {
                continue;
            }
            if !self.is(&path) {
                notices.leave_out(&name);
            } else if let Err(error) = plain_file(&path, "open") {
                notices.lost.push(name, error.reason());
            }
        }
        Ok(notices)
    }

    #[cfg(not(feature = "remote"))]
    fn open_remote(&self, config: &DataConfig) -> Result<Vec<Box<dyn Blob>>> {
        let problem = "URLs need a build with `--features remote`".into();
        Err(Error::Path { path: config.path_text().into(), problem })
    }

    #[cfg(feature = "remote")]
    fn open_remote(&self, config: &DataConfig) -> Result<Vec<Box<dyn Blob>>> {
        let mut stores = crate::storage::Stores::new(config);
        let mut places = Vec::new();
        for address in self.addresses(config.path_text(), &mut stores)? {
            places.push(stores.place(&address)?);
        }
        let open = |place: crate::storage::Place| {
            place.open().map(|object| Box::new(object) as Box<dyn Blob>)
        };
        let opened: Vec<Result<Box<dyn Blob>>> =
            together(config, || places.into_par_iter().map(open).collect())?;
        opened.into_iter().collect()
    }

    /// Returns the URLs that a URL with braces, a `*`, or a trailing `/` stands for.
    #[cfg(feature = "remote")]
    fn addresses(&self, text: &str, stores: &mut crate::storage::Stores) -> Result<Vec<String>> {
        let problem = |problem: String| Error::Path { path: text.into(), problem };
        let pattern = text.rsplit('/').next().unwrap_or_default();
        if !pattern.contains('*') && !pattern.is_empty() {
            let found = expand(text).ok_or_else(|| problem("expands to too many files".into()))?;
            return match found.is_empty() {
                true => Err(problem("expands to no files".into())),
                false => Ok(found),
            };
        }
        let pattern = if pattern.is_empty() { "*" } else { pattern };
        let last = |address: &String| address.rsplit('/').next().unwrap_or_default().to_owned();
        let mut found = stores.list(text)?;
        found.retain(|address| self.is(Path::new(address)) && matches(pattern, &last(address)));
        found.sort_unstable();
        if found.is_empty() {
            return Err(problem(format!("no matching files ({})", self.ends.join(", "))));
        }
        Ok(found)
    }

    /// Returns the files that `path` stands for: those of a folder or a `*` pattern, sorted by
    /// name, or those of a brace pattern, in its order.
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
        let text = path.to_string_lossy();
        if text.contains('{') {
            let names = expand(&text).ok_or_else(|| problem("expands to too many files".into()))?;
            let paths: Vec<PathBuf> = names.into_iter().map(PathBuf::from).collect();
            return match paths.iter().find(|path| !path.is_file()) {
                Some(path) => Err(missing(path)),
                None if paths.is_empty() => Err(problem("expands to no files".into())),
                None => Ok(paths),
            };
        }
        let pattern = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.exists() {
            plain_file(path, "open")?;
        }
        if !pattern.contains('*') {
            return Err(missing(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        if folder.to_string_lossy().contains('*') {
            return Err(problem("`*` is only allowed in the last part of the path".into()));
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
    let mut found = entries(folder)?;
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        kind.is(path) && matches(pattern, &name) && path.is_file()
    });
    Ok(found)
}

/// Returns the entries of a folder, sorted.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { action: "list", path: folder.into(), source };
    let entries = std::fs::read_dir(folder).map_err(io)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()
        .map_err(io)?;
    paths.sort_unstable();
    Ok(paths)
}

/// Returns whether `name` matches `pattern`, in which `*` stands for any sequence of characters.
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
