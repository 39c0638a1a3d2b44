//! WebDataset shards: images and labels in tar or tar.gz files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::labels::Labels;
use super::tar_index::{self, Budget, Index, Member};
use super::{Payload, Source, digest, missing};
use crate::error::{Error, Result};

/// Up to so many plain shards are kept open; more are opened for each read, because the number
/// of open files of a process is limited.
const MAX_OPEN: usize = 256;

/// The images of one or more shards, in the order of the shards' names and then of their members.
///
/// A plain tar file is read at random from disk. A compressed one cannot be, so its images are
/// held in memory, within a limit.
#[derive(Debug)]
pub struct Shards {
    shards: Vec<Shard>,
    /// Index of each shard's first image.
    starts: Vec<usize>,
    len: usize,
    labels: Labels,
}

#[derive(Debug)]
struct Shard {
    path: PathBuf,
    members: Vec<Member>,
    body: Body,
}

/// Where the bytes of a shard's images are.
#[derive(Debug)]
enum Body {
    Open(File),
    Closed,
    Memory(Vec<u8>),
}

impl Shards {
    /// Opens one shard, all shards directly in a folder, or those whose name matches a pattern
    /// with `*` in the last part of `path`; reads all tables of contents, shards in parallel.
    /// `cache_gb` is the memory in GB that the images of compressed shards may take.
    ///
    /// # Errors
    /// Nothing matches, a shard cannot be read, is cut off, or the limit is passed; there are no
    /// images.
    pub fn open(path: &Path, cache_gb: f64) -> Result<Self> {
        let paths = find(path)?;
        let budget = Budget::new(cache_gb);
        let indexes: Vec<Result<Index>> =
            paths.par_iter().map(|path| tar_index::read(path, &budget)).collect();
        let keep_open = paths.len() <= MAX_OPEN;
        let (mut shards, mut starts, mut len) = (Vec::new(), Vec::new(), 0);
        let mut texts = Vec::new();
        for (path, index) in paths.into_iter().zip(indexes) {
            let mut index = index?;
            texts.extend(index.members.iter_mut().map(|member| member.label.take()));
            let body = match index.memory {
                Some(memory) => Body::Memory(memory),
                None if keep_open => Body::Open(open_file(&path)?),
                None => Body::Closed,
            };
            starts.push(len);
            len += index.members.len();
            shards.push(Shard { path, members: index.members, body });
        }
        if len == 0 {
            return Err(Error::Path {
                path: path.into(),
                problem: format!("no image files in its {} shard(s)", shards.len()),
            });
        }
        Ok(Self { shards, starts, len, labels: Labels::from_texts(&texts) })
    }

    fn find(&self, index: usize) -> Option<(&Shard, &Member)> {
        // An empty shard starts where the next one does; the last of equal starts is meant.
        let shard = self.starts.partition_point(|&start| start <= index).checked_sub(1)?;
        let member = self.shards[shard].members.get(index - self.starts[shard])?;
        Some((&self.shards[shard], member))
    }
}

impl Source for Shards {
    fn kind(&self) -> &'static str {
        "shards"
    }

    fn len(&self) -> usize {
        self.len
    }

    fn name(&self, index: usize) -> String {
        let Some((shard, member)) = self.find(index) else { return String::new() };
        let file = shard.path.file_name().unwrap_or_default();
        format!("{}/{}", file.to_string_lossy(), member.name)
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.labels.get(index).copied().flatten()
    }

    fn class_names(&self) -> &[String] {
        &self.labels.names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        let (shard, member) = self.find(index).ok_or(Error::Index { index, len: self.len })?;
        let (start, size) = (member.offset, member.size as usize);
        let bytes = match &shard.body {
            Body::Memory(memory) => memory[start as usize..start as usize + size].to_vec(),
            Body::Open(file) => read_at(file, start, size, &shard.path)?,
            Body::Closed => read_at(&open_file(&shard.path)?, start, size, &shard.path)?,
        };
        Ok(Payload::Encoded(bytes))
    }

    fn fingerprint(&self) -> String {
        let members = self.shards.iter().flat_map(|shard| &shard.members);
        let sizes = members.map(|member| member.size).enumerate();
        digest(sizes.map(|(i, size)| (self.name(i), self.label(i), size)))
    }
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Io { action: "open", path: path.into(), source })
}

fn read_at(file: &File, offset: u64, size: usize, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, offset).map_err(|source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    })?;
    Ok(bytes)
}

/// Whether the name is that of a shard.
pub(super) fn is_shard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let ends = [".tar", ".tar.gz", ".tgz"].iter().any(|end| name.ends_with(end));
    ends && !name.starts_with('.')
}

/// Whether a shard lies directly in the folder.
pub(super) fn has_shards(folder: &Path) -> Result<bool> {
    Ok(!in_folder(folder, "*")?.is_empty())
}

/// The shards that `path` means, sorted by name.
fn find(path: &Path) -> Result<Vec<PathBuf>> {
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
