//! Which files a path means.

use std::path::{Path, PathBuf};

use super::super::missing;
use crate::error::{Error, Result};

/// Whether the name is that of a shard.
pub(in crate::source) fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end));
    ends && !name.starts_with('.')
}

/// Whether a shard lies directly in the folder.
pub(in crate::source) fn has_shards(folder: &Path) -> Result<bool> {
    Ok(!in_folder(folder, "*")?.is_empty())
}

/// The shards that `path` means, sorted by name.
pub(super) fn find(path: &Path) -> Result<Vec<PathBuf>> {
    let problem = |problem: &str| Error::Path { path: path.into(), problem: problem.into() };
    let pattern = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if path.is_dir() {
        let found = in_folder(path, "*")?;
        let none = "no shards (.tar, .tar.gz, .tgz) directly in this folder";
        return if found.is_empty() { Err(problem(none)) } else { Ok(found) };
    }
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    if !pattern.contains('*') {
        return Err(missing(path));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    if folder.to_string_lossy().contains('*') {
        return Err(problem("`*` may stand in the last part of the path only"));
    }
    if !folder.is_dir() {
        return Err(missing(folder));
    }
    let found = in_folder(folder, &pattern)?;
    if found.is_empty() {
        return Err(problem("no .tar, .tar.gz or .tgz file matches this pattern"));
    }
    Ok(found)
}

fn in_folder(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let io = |source| Error::Io { action: "list", path: folder.into(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_shard(&path) && matches(pattern, &name) && path.is_file() {
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
