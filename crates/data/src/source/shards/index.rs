//! The index of a shard, in a file `NAME.tar.index` next to `NAME.tar`. With an index, a shard is
//! opened without reading it, and every image that is read is compared with its entry.
//!
//! The format is text with one JSON value per line. The first is an object with the name and
//! version of the format, the size of the shard, the number of images, the notices, and the CRC-32
//! of the following lines and of the notices. Each image then has an array
//! `[offset, size, crc32 of the header, crc32 of the content, label or null, name]`; for an image
//! stored in pieces, it also contains its length and the `[offset, length]` of each piece.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::super::find::SHARDS;
use super::super::notices::Notices;
use super::blocks::HEADER_BYTES;
use super::members::{Member, Members};
use super::scan;
use super::sparse::Sparse;
use crate::error::{Error, Result};
use crate::storage::{Blob, LocalFile, read_error};

/// Suffix that is appended to the name of a shard.
pub(super) const SUFFIX: &str = ".index";
const FORMAT: &str = "simdino-tar-index";
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: String,
    version: u32,
    shard_bytes: u64,
    images: usize,
    #[serde(default, skip_serializing_if = "Notices::is_empty")]
    notices: Notices,
    crc32: u32,
}

impl Head {
    /// Computes the checksum of the lines after the head, and of the notices if there are any.
    fn checksum(body: &[u8], notices: &Notices) -> serde_json::Result<u32> {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(body);
        if !notices.is_empty() {
            hasher.update(&serde_json::to_vec(notices)?);
        }
        Ok(hasher.finalize())
    }
}

/// The entry of an image: offset, size, checksums of header and content, label, name, and
/// optionally length and pieces.
#[derive(Debug, Serialize, Deserialize)]
struct Line<'a>(
    u64,
    u64,
    u32,
    u32,
    #[serde(borrow)] Option<Cow<'a, str>>,
    #[serde(borrow)] Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<(u64, Vec<(u64, u64)>)>,
);

/// Loads the index next to `shard`, if there is one.
///
/// # Errors
/// Returns an error if the index cannot be read or is damaged, or if the size of the shard differs
/// from that in the index.
pub(super) fn load(shard: &dyn Blob) -> Result<Option<Members>> {
    let place = place(shard.path());
    let io = |source| read_error(&place, source);
    let Some(bytes) = shard.sibling(SUFFIX).map_err(io)? else { return Ok(None) };
    let damaged = || Error::Path {
        path: place.clone(),
        problem: "the index is damaged: delete it, or rebuild it with `simdino data index`".into(),
    };
    let (head, body) = split_line(&bytes).ok_or_else(damaged)?;
    let head: Head = serde_json::from_slice(head).map_err(|_| damaged())?;
    let checksum = Head::checksum(body, &head.notices).map_err(|_| damaged())?;
    if head.format != FORMAT || head.version != VERSION || head.crc32 != checksum {
        return Err(damaged());
    }
    if head.shard_bytes != shard.len() {
        let problem = format!("{} bytes instead of {}", shard.len(), head.shard_bytes);
        return Err(Error::ShardChanged { path: shard.path().into(), problem });
    }
    let members = parse(body, shard.len()).filter(|members| members.len() == head.images);
    let mut members = members.ok_or_else(damaged)?;
    members.notices = head.notices;
    Ok(Some(members))
}

fn parse(mut body: &[u8], shard_bytes: u64) -> Option<Members> {
    let mut members = Members::default();
    while let Some((line, rest)) = split_line(body) {
        let Line(offset, size, header, content, label, name, pieces) =
            serde_json::from_slice(line).ok()?;
        let sparse = pieces.map(|(len, pieces)| Sparse { len, pieces });
        let inside = offset.checked_add(size).is_some_and(|end| end <= shard_bytes)
            && sparse.as_ref().is_none_or(|sparse| sparse.fits(size));
        if !inside || offset < HEADER_BYTES as u64 {
            return None;
        }
        let member = Member { offset, size, header: Some(header), content: Some(content) };
        members.push(&name, member, label.map(Cow::into_owned), sparse);
        body = rest;
    }
    members.shrink();
    body.is_empty().then_some(members)
}

/// Returns the first line without its line break, and the rest.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == b'\n')?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

/// Returns the path of the index of the shard at `path`.
pub(super) fn place(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(SUFFIX);
    name.into()
}

/// Lists the members of the uncompressed shard at `path` by reading the shard itself, and computes
/// the checksums of their contents. Also returns the size of the shard in bytes.
///
/// # Errors
/// Returns an error if the shard cannot be read, is truncated, or is compressed.
pub(super) fn measure(path: &Path) -> Result<(Members, u64)> {
    let blob = LocalFile::open(path)?;
    if scan::is_gzip(&blob)? {
        let problem = "compressed, so it does not allow random access: gunzip it first".into();
        return Err(Error::Path { path: path.into(), problem });
    }
    let mut members = scan::plain(&blob)?;
    let mut bytes = Vec::new();
    for index in 0..members.len() {
        let Some(member) = members.get(index).copied() else { continue };
        bytes.resize(member.size as usize, 0);
        blob.read_at(member.offset, &mut bytes).map_err(|source| Error::Io {
            action: "read",
            path: path.into(),
            source,
        })?;
        members.set_content(index, crc32fast::hash(&bytes));
    }
    Ok((members, blob.len()))
}

/// Writes the index of the shard at `path` atomically.
///
/// # Errors
/// Returns an error if the index cannot be written.
pub(super) fn store(path: &Path, members: &Members, shard_bytes: u64) -> Result<()> {
    let place = place(path);
    let io = |source: std::io::Error| Error::Io { action: "write", path: place.clone(), source };
    let mut body = Vec::new();
    for (index, (name, member)) in members.iter().enumerate() {
        let (header, content) = (member.header.unwrap_or(0), member.content.unwrap_or(0));
        let label = members.labels[index].as_deref().map(Cow::Borrowed);
        let pieces = members.sparse(index).map(|sparse| (sparse.len, sparse.pieces.clone()));
        let (offset, size) = (member.offset, member.size);
        let line = Line(offset, size, header, content, label, name.into(), pieces);
        serde_json::to_writer(&mut body, &line).map_err(|error| io(error.into()))?;
        body.push(b'\n');
    }
    let (images, notices) = (members.len(), members.notices.clone());
    let crc32 = Head::checksum(&body, &notices).map_err(|error| io(error.into()))?;
    let head =
        Head { format: FORMAT.into(), version: VERSION, shard_bytes, images, notices, crc32 };
    let mut text = serde_json::to_vec(&head).map_err(|error| io(error.into()))?;
    text.push(b'\n');
    base::write_atomic_with(&place, |file| {
        file.write_all(&text)?;
        file.write_all(&body)
    })
    .map_err(io)
}

/// Writes an index next to each shard that `path` stands for. Returns the number of shards and the
/// total number of their images. `progress` is called after each shard with the number of all
/// shards.
///
/// # Errors
/// Returns an error if nothing matches, a shard is compressed or cannot be read, or an index
/// cannot be written.
pub fn write_index(path: &Path, progress: impl Fn(usize) + Sync) -> Result<(usize, usize)> {
    let shards = SHARDS.find(path)?;
    let index = |shard: &PathBuf| {
        let (members, shard_bytes) = measure(shard)?;
        store(shard, &members, shard_bytes)?;
        progress(shards.len());
        Ok(members.len())
    };
    let counts: Vec<Result<usize>> = shards.par_iter().map(index).collect();
    Ok((shards.len(), counts.into_iter().sum::<Result<usize>>()?))
}
