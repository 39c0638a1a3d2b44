//! The table of contents of one WebDataset shard.
//!
//! The members of a sample share their key: the name up to the first dot of its last part. The
//! rest of the name says what the member is: `.jpg` (or another image extension) the picture,
//! `.cls` its class in text, `.json` an object with a `label`.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entries};

use super::is_image;
use crate::error::{Error, Result};

const BLOCK_BYTES: u64 = 512;
/// Larger `.cls` and `.json` members are not looked into.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// One image of a shard.
#[derive(Debug)]
pub(super) struct Member {
    /// Name inside the shard.
    pub(super) name: String,
    /// Where its bytes begin, in the tar file or in the memory that holds the images.
    pub(super) offset: u64,
    /// Number of bytes.
    pub(super) size: u64,
    /// Label as text, where there is one.
    pub(super) label: Option<String>,
}

/// The images of one shard, in their order, and where their bytes are.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) members: Vec<Member>,
    /// The bytes of all images of a compressed shard; a plain one stays on disk.
    pub(super) memory: Option<Vec<u8>>,
}

/// Memory that all decompressed shards together may take.
#[derive(Debug)]
pub(super) struct Budget {
    left: AtomicU64,
    limit_gb: f64,
}

impl Budget {
    pub(super) fn new(limit_gb: f64) -> Self {
        Self { left: AtomicU64::new((limit_gb * 1e9) as u64), limit_gb }
    }

    fn take(&self, path: &Path, bytes: u64) -> Result<()> {
        let taken = self
            .left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken
            .map(|_| ())
            .map_err(|_| Error::ShardCache { path: path.into(), limit_gb: self.limit_gb })
    }
}

/// Reads the table of contents of the shard at `path`; a gzip file's images go into memory.
///
/// # Errors
/// The shard cannot be read, is no tar file, ends early, or does not fit into the `budget`.
pub(super) fn read(path: &Path, budget: &Budget) -> Result<Index> {
    let io = |source| Error::Io { action: "open", path: path.into(), source };
    let mut file = File::open(path).map_err(io)?;
    let length = file.metadata().map_err(io)?.len();
    if is_gzip(path).map_err(io)? {
        let mut archive = Archive::new(MultiGzDecoder::new(io::BufReader::new(file)));
        let mut scan = Scan { path, budget: Some(budget), ..Scan::new(path) };
        scan.run(archive.entries().map_err(|e| scan.broken(e))?)?;
        // Whatever stands behind the last member: reaching the end checks the gzip checksum.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| scan.broken(e))?;
        return scan.finish();
    }
    let mut archive = Archive::new(&mut file);
    let mut scan = Scan::new(path);
    scan.run(archive.entries_with_seek().map_err(|e| scan.broken(e))?)?;
    // The reader leaps over contents and takes any end for the end; an archive that was cut off
    // between two members is known by its missing end marker, a block of zeros.
    if scan.end.saturating_add(BLOCK_BYTES) > length {
        return Err(scan.broken(io::ErrorKind::UnexpectedEof.into()));
    }
    scan.finish()
}

fn is_gzip(path: &Path) -> io::Result<bool> {
    let mut magic = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut magic)?;
    Ok(magic == [0x1F, 0x8B])
}

/// The members found so far.
struct Scan<'a> {
    path: &'a Path,
    /// Present: image bytes are kept in memory.
    budget: Option<&'a Budget>,
    memory: Vec<u8>,
    images: Vec<Member>,
    labels: HashMap<String, String>,
    /// Where the last member ends, padding included.
    end: u64,
}

impl<'a> Scan<'a> {
    fn new(path: &'a Path) -> Self {
        Self {
            path,
            budget: None,
            memory: Vec::new(),
            images: Vec::new(),
            labels: HashMap::new(),
            end: 0,
        }
    }

    fn broken(&self, source: io::Error) -> Error {
        Error::Shard { path: self.path.into(), source }
    }

    fn run<R: Read>(&mut self, entries: Entries<'_, R>) -> Result<()> {
        for entry in entries {
            let mut entry = entry.map_err(|e| self.broken(e))?;
            let (offset, size) = (entry.raw_file_position(), entry.size());
            self.end =
                offset.saturating_add(size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES));
            let kind = entry.header().entry_type();
            if !(kind.is_file() || kind.is_contiguous()) {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let (key, extension) = split(&name);
            if is_hidden(&name) {
                continue;
            }
            if is_image(Path::new(&name)) {
                let offset = self.keep(&mut entry, offset, size)?;
                self.images.push(Member { name, offset, size, label: None });
            } else if matches!(extension, "cls" | "json") && size <= MAX_LABEL_BYTES {
                let mut text = Vec::new();
                entry.read_to_end(&mut text).map_err(|e| self.broken(e))?;
                if let Some(label) = label_of(&text, extension, self.path, &name)? {
                    self.labels.insert(key.to_owned(), label);
                }
            }
        }
        Ok(())
    }

    /// Puts the bytes of an image into memory if they are to be kept there; where they begin.
    fn keep(&mut self, entry: &mut impl Read, offset: u64, size: u64) -> Result<u64> {
        let Some(budget) = self.budget else { return Ok(offset) };
        budget.take(self.path, size)?;
        let start = self.memory.len() as u64;
        let read = entry.take(size).read_to_end(&mut self.memory).map_err(|e| self.broken(e))?;
        if read as u64 != size {
            return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(start)
    }

    fn finish(mut self) -> Result<Index> {
        let plain: HashSet<String> = self
            .images
            .iter()
            .map(|member| split(&member.name))
            .filter(|(_, extension)| !extension.contains('.'))
            .map(|(key, _)| key.to_owned())
            .collect();
        // `0001.seg.png` beside `0001.jpg` is no picture of its own; `IMG.2020.01.jpg` alone is.
        self.images.retain(|member| {
            let (key, extension) = split(&member.name);
            !extension.contains('.') || !plain.contains(key)
        });
        for member in &mut self.images {
            member.label = self.labels.get(split(&member.name).0).cloned();
        }
        self.memory.shrink_to_fit();
        let memory = self.budget.map(|_| self.memory);
        Ok(Index { members: self.images, memory })
    }
}

/// Key and extension of a member's name.
fn split(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

/// Whether the last part of the name begins with a dot, as macOS names its side files.
fn is_hidden(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|base| base.starts_with('.'))
}

/// The label in a `.cls` or `.json` member; none in a JSON document without a usable `label`.
fn label_of(text: &[u8], extension: &str, path: &Path, name: &str) -> Result<Option<String>> {
    let problem = |problem: &str| Error::Path {
        path: PathBuf::from(path),
        problem: format!("member {name}: {problem}"),
    };
    if extension == "cls" {
        let text = std::str::from_utf8(text).map_err(|_| problem("not a class in ASCII"))?;
        return Ok(Some(text.trim().to_owned()));
    }
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|_| problem("not a JSON document"))?;
    Ok(match value.get("label") {
        Some(serde_json::Value::String(name)) => Some(name.clone()),
        Some(serde_json::Value::Number(number)) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{is_hidden, split};

    #[test]
    fn the_key_ends_at_the_first_dot_of_the_last_part() {
        assert_eq!(split("a.b/0001.seg.png"), ("a.b/0001", "seg.png"));
        assert_eq!(split("0001.jpg"), ("0001", "jpg"));
        assert_eq!(split("dir/none"), ("dir/none", ""));
        assert!(is_hidden("a/._b.jpg") && !is_hidden("./a/b.jpg"));
    }
}
