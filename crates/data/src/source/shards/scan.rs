//! The table of contents of one WebDataset shard, read from the shard itself.
//!
//! The members of a sample share their key: the name up to the first dot of its last part. The
//! rest of the name says what the member is: `.jpg` (or another image extension) the picture,
//! `.cls` its class in text, `.json` an object with a `label`.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entries, Entry};

use super::super::is_image;
use super::members::{Member, Members};
use crate::error::{Error, Result};
use crate::storage::{Blob, Cursor, Spool, SpoolError, SpoolLimits, failure_in, read_error};

const BLOCK_BYTES: u64 = 512;
/// Larger `.cls` and `.json` members are not looked into.
const MAX_LABEL_BYTES: u64 = 1 << 20;

/// Whether the shard is compressed.
///
/// # Errors
/// It cannot be read.
pub(super) fn is_gzip(shard: &dyn Blob) -> Result<bool> {
    let mut magic = [0; 2]; // not by a cursor, which would fetch a block
    if shard.len() >= magic.len() as u64 {
        shard.read_at(0, &mut magic).map_err(|source| read_error(shard.path(), source))?;
    }
    Ok(magic == [0x1F, 0x8B])
}

/// Lists the images of a plain shard.
///
/// # Errors
/// It cannot be read, is no tar file, or ends early.
pub(super) fn plain(shard: &dyn Blob) -> Result<Members> {
    let mut archive = Archive::new(Cursor::new(shard));
    let mut scan = Scan::new(shard.path());
    scan.run(archive.entries_with_seek().map_err(|e| scan.broken(e))?)?;
    // The reader leaps over contents and takes any end for the end; an archive that was cut off
    // between two members is known by its missing end marker, a block of zeros.
    if scan.end.saturating_add(BLOCK_BYTES) > shard.len() {
        return Err(scan.broken(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok(scan.finish())
}

/// Lists the images of a gzip-compressed shard, and gives their bytes a place with random access.
///
/// # Errors
/// It cannot be read, is no tar file, or ends early; there is no room for its images.
pub(super) fn compressed(
    shard: &dyn Blob,
    limits: &SpoolLimits,
) -> Result<(Members, Box<dyn Blob>)> {
    let mut archive = Archive::new(MultiGzDecoder::new(io::BufReader::new(Cursor::new(shard))));
    let mut scan = Scan::new(shard.path());
    scan.spool = Some(Spool::new(shard.path(), limits));
    scan.run(archive.entries().map_err(|e| scan.broken(e))?)?;
    // Whatever stands behind the last member: reaching the end checks the gzip checksum.
    io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|e| scan.broken(e))?;
    let spool = scan.spool.take().unwrap_or_else(|| Spool::new(shard.path(), limits));
    Ok((scan.finish(), spool.finish()?))
}

/// The members found so far.
struct Scan<'a> {
    path: &'a Path,
    /// Present: image bytes are copied to it.
    spool: Option<Spool<'a>>,
    images: Vec<(String, Member)>,
    labels: HashMap<String, String>,
    /// Where the last member ends, padding included.
    end: u64,
}

impl<'a> Scan<'a> {
    fn new(path: &'a Path) -> Self {
        Self { path, spool: None, images: Vec::new(), labels: HashMap::new(), end: 0 }
    }

    fn broken(&self, source: io::Error) -> Error {
        match failure_in(&source) {
            Some(failure) => failure.into(),
            None => Error::Shard { path: self.path.into(), source },
        }
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
                let member = self.member(&mut entry, offset, size)?;
                self.images.push((name, member));
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

    /// An image: where it is in the shard, or where its bytes were copied to.
    fn member<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        offset: u64,
        size: u64,
    ) -> Result<Member> {
        let Some(spool) = &mut self.spool else {
            let header = Some(crc32fast::hash(entry.header().as_bytes()));
            return Ok(Member { offset, size, header, content: None });
        };
        let offset = spool.add(entry, size).map_err(|error| match error {
            SpoolError::Read(source) => self.broken(source),
            SpoolError::Write(error) => error,
        })?;
        Ok(Member { offset, size, header: None, content: None })
    }

    fn finish(self) -> Members {
        let Self { images, labels, .. } = self;
        let plain: HashSet<&str> = images
            .iter()
            .map(|(name, _)| split(name))
            .filter(|(_, extension)| !extension.contains('.'))
            .map(|(key, _)| key)
            .collect();
        let mut members = Members::default();
        for (name, member) in &images {
            let (key, extension) = split(name);
            // `0001.seg.png` beside `0001.jpg` is no picture of its own; `IMG.2020.01.jpg` alone is.
            if !extension.contains('.') || !plain.contains(key) {
                members.push(name, *member, labels.get(key).cloned());
            }
        }
        members.shrink();
        members
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
