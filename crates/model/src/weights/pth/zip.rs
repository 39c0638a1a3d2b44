//! The zip archive that `torch.save` writes: everything is stored uncompressed.
//!
//! Only the directory at its end is read, and only the structures that torch writes are supported,
//! so nothing can expand to more than the file contains.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::contents::{Contents, MAX_PICKLE, Packing, arena_budget};
use super::error::{PthError, Result};
use super::{machine, tree};
use crate::weights::stored::Extent;

/// Maximum number of storages and other parts in an archive.
const MAX_PARTS: u64 = 2 * tree::MAX_TENSORS as u64;
/// Longest name of a part.
const MAX_NAME: usize = 512;

const LOCAL: [u8; 4] = *b"PK\x03\x04";
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const END: [u8; 4] = *b"PK\x05\x06";
const END_64: [u8; 4] = *b"PK\x06\x06";
const END_64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END_LEN: u64 = 22;
const LOCATOR_LEN: u64 = 20;
const CENTRAL_LEN: usize = 46;
const LOCAL_LEN: u64 = 30;
/// The end record may be followed by a comment of up to this length.
const MAX_COMMENT: u64 = 65_535;

/// Returns whether a file that starts with these bytes may be a zip archive.
pub(super) fn looks_like(head: &[u8]) -> bool {
    head.starts_with(&LOCAL)
}

/// An entry of the directory.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: u64,
    len: u64,
    stored: bool,
}

/// Reads the pickle and locates the storages.
pub(super) fn read(file: &mut File, len: u64) -> Result<Contents> {
    let parts = Parts::list(file, len)?;
    if let Some(order) = parts.by_name.get("byteorder") {
        let extent = parts.place(file, "byteorder", *order)?;
        if extent.len == 3 && bytes_at(file, extent)? == b"big" {
            return Err(PthError::BigEndian);
        }
    }
    let Some(pickle) = parts.by_name.get("data.pkl") else {
        let other = "it has no data.pkl: it may be a TorchScript archive or another program's file";
        return Err(PthError::Format(other));
    };
    let extent = parts.place(file, "data.pkl", *pickle)?;
    if extent.len > MAX_PICKLE {
        return Err(PthError::Limit { what: "bytes of pickle", limit: MAX_PICKLE as usize });
    }
    let bytes = bytes_at(file, extent)?;
    let pickle = machine::run(&bytes, arena_budget(len))?;
    let file = std::cell::RefCell::new(file);
    let find_storage = |key: &str, bytes: u64| {
        let name = format!("data/{key}");
        let part = parts.by_name.get(&name).ok_or(PthError::Missing(name.clone()))?;
        if part.len < bytes {
            return Err(PthError::Truncated("a storage"));
        }
        parts.place(&mut file.borrow_mut(), &name, *part)
    };
    let found = tree::collect(&pickle, &find_storage)?;
    Ok(Contents { packing: Packing::Zip, tensors: found.tensors, values: found.values })
}

struct Parts {
    by_name: BTreeMap<String, Entry>,
    file_len: u64,
}

impl Parts {
    /// Reads the directory at the end of the archive.
    fn list(file: &mut File, file_len: u64) -> Result<Self> {
        let (count, start, end) = directory(file, file_len)?;
        if count > MAX_PARTS {
            return Err(PthError::Limit { what: "parts", limit: MAX_PARTS as usize });
        }
        let len = end
            .checked_sub(start)
            .ok_or(PthError::Archive("its central directory is out of place"))?;
        let list = bytes_at(file, Extent { offset: start, len })?;
        let mut by_name = BTreeMap::new();
        let mut rest = list.as_slice();
        for _ in 0..count {
            let (name, part, tail) = central_entry(rest)?;
            // torch puts everything into one folder, of any name.
            if let Some((_, name)) = name.split_once('/') {
                by_name.insert(name.to_owned(), part);
            }
            rest = tail;
        }
        Ok(Self { by_name, file_len })
    }

    /// Locates the bytes of a part. They follow its local header, and only that header states its
    /// own length.
    fn place(&self, file: &mut File, name: &str, part: Entry) -> Result<Extent> {
        if !part.stored {
            return Err(PthError::Compressed(name.to_owned()));
        }
        let header = bytes_at(file, Extent { offset: part.header, len: LOCAL_LEN })?;
        if !header.starts_with(&LOCAL) {
            return Err(PthError::Archive("a part is not where its central directory says"));
        }
        let (name_len, extra_len) =
            (u64::from(u16_at(&header, 26)), u64::from(u16_at(&header, 28)));
        let offset = part.header + LOCAL_LEN + name_len + extra_len;
        match offset.checked_add(part.len) {
            Some(end) if end <= self.file_len => Ok(Extent { offset, len: part.len }),
            _ => Err(PthError::Truncated("one of its parts")),
        }
    }
}

/// Returns the number of entries in the directory, its start, and its end.
fn directory(file: &mut File, file_len: u64) -> Result<(u64, u64, u64)> {
    let tail_len = file_len.min(END_LEN + MAX_COMMENT);
    let tail_start = file_len - tail_len;
    let tail = bytes_at(file, Extent { offset: tail_start, len: tail_len })?;
    let at = tail.windows(4).rposition(|window| window == END);
    let at = at.filter(|at| at + END_LEN as usize <= tail.len());
    let at = at.ok_or(PthError::Truncated("its archive"))?;
    let end = &tail[at..];
    let (count, size, start) =
        (u64::from(u16_at(end, 10)), u64::from(u32_at(end, 12)), u64::from(u32_at(end, 16)));
    let end_at = tail_start + at as u64;
    let wide = count == 0xffff || size == 0xffff_ffff || start == 0xffff_ffff;
    let (count, size, start) = match wide && end_at >= LOCATOR_LEN {
        true => directory_64(file, end_at, (count, size, start))?,
        false => (count, size, start),
    };
    match start.checked_add(size) {
        Some(end) if end <= end_at => Ok((count, start, end)),
        _ => Err(PthError::Archive("its central directory is out of place")),
    }
}

/// Returns the numbers of [`directory`] from the ZIP64 record, or `narrow` if there is none.
fn directory_64(file: &mut File, end_at: u64, narrow: (u64, u64, u64)) -> Result<(u64, u64, u64)> {
    let offset = end_at - LOCATOR_LEN;
    let locator = bytes_at(file, Extent { offset, len: LOCATOR_LEN })?;
    if !locator.starts_with(&END_64_LOCATOR) {
        return Ok(narrow);
    }
    let record = u64_at(&locator, 8);
    if record > offset {
        return Err(PthError::Archive("its central directory is out of place"));
    }
    let record = bytes_at(file, Extent { offset: record, len: 56.min(offset - record) })?;
    if record.len() < 56 || !record.starts_with(&END_64) {
        return Err(PthError::Archive("its central directory is out of place"));
    }
    Ok((u64_at(&record, 32), u64_at(&record, 40), u64_at(&record, 48)))
}

/// Parses the first entry of `list`, and returns the rest.
fn central_entry(list: &[u8]) -> Result<(&str, Entry, &[u8])> {
    let broken = PthError::Archive("its central directory is cut off");
    if list.len() < CENTRAL_LEN || !list.starts_with(&CENTRAL) {
        return Err(broken);
    }
    let method = u16_at(list, 10);
    let (packed, len) = (u64::from(u32_at(list, 20)), u64::from(u32_at(list, 24)));
    let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| usize::from(u16_at(list, at)));
    let header = u64::from(u32_at(list, 42));
    let name_end = CENTRAL_LEN + name_len;
    let extra_end = name_end + extra_len;
    let (Some(name), Some(extra), Some(tail)) = (
        list.get(CENTRAL_LEN..name_end),
        list.get(name_end..extra_end),
        list.get(extra_end + comment_len..),
    ) else {
        return Err(broken);
    };
    let name = std::str::from_utf8(name).ok().filter(|name| name.len() <= MAX_NAME);
    let name = name.ok_or(PthError::Archive("a part has no valid name"))?;
    let [len, packed, header] = wide_fields(extra, [len, packed, header])?;
    let stored = method == 0 && packed == len;
    Ok((name, Entry { header, len, stored }, tail))
}

/// Replaces fields whose bits are all set with their 64-bit values, which the ZIP64 extra field
/// lists in the same order.
fn wide_fields(extra: &[u8], mut fields: [u64; 3]) -> Result<[u64; 3]> {
    if fields.iter().all(|&field| field != 0xffff_ffff) {
        return Ok(fields);
    }
    let mut rest = extra;
    while rest.len() >= 4 {
        let (id, len) = (u16_at(rest, 0), usize::from(u16_at(rest, 2)));
        let Some(data) = rest.get(4..4 + len) else { break };
        if id == 1 {
            let mut numbers = data.chunks_exact(8);
            for field in fields.iter_mut().filter(|field| **field == 0xffff_ffff) {
                let number = numbers.next();
                *field = u64_at(number.ok_or(PthError::Archive("a number is cut off"))?, 0);
            }
            return Ok(fields);
        }
        rest = &rest[4 + len..];
    }
    Ok(fields)
}

/// Reads the bytes of an extent that must lie in the file.
fn bytes_at(file: &mut File, extent: Extent) -> Result<Vec<u8>> {
    let len = file.metadata()?.len();
    if extent.offset.checked_add(extent.len).is_none_or(|end| end > len) {
        return Err(PthError::Truncated("one of its parts"));
    }
    file.seek(SeekFrom::Start(extent.offset))?;
    let mut bytes = Vec::with_capacity(extent.len as usize);
    file.by_ref().take(extent.len).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != extent.len {
        return Err(PthError::Truncated("one of its parts"));
    }
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_le_bytes(*b))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_le_bytes(*b))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|b| b.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}
