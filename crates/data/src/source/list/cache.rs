//! Caches the parsed list in a file `.NAME.index` next to it, so that opening ten million images
//! takes a fraction of a second.
//!
//! A cache is used only if the list still has the size, the modification time, and the first and
//! last bytes with which the cache was made, and if the cache's own checksum is correct. Otherwise,
//! and if no cache can be written, the list is parsed: a cache affects nothing but the time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base::write_atomic_with;

use super::super::names::Names;
use super::table::Table;
use crate::storage::plain_file;

/// Identifies the format of a cache. Must change with the format and with how lists are parsed.
const MAGIC: u64 = u64::from_le_bytes(*b"sdlist03");
/// Number of bytes at each end of a list that are part of its key.
const ENDS: u64 = 64 << 10;
/// Minimum size of a list for a cache: smaller lists are parsed as fast as a cache is read.
const MIN_BYTES: u64 = 1 << 20;

/// Identifies the list from which a cache was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u64; 4]);

impl Key {
    /// Returns the key of the list at `path`, or `None` if the list is small or cannot be read.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let mut file = File::open(path).ok()?;
        let about = file.metadata().ok()?;
        if about.len() < MIN_BYTES {
            return None;
        }
        let mut ends = Vec::new();
        Read::by_ref(&mut file).take(ENDS).read_to_end(&mut ends).ok()?;
        file.seek(SeekFrom::Start(about.len() - ENDS)).ok()?;
        file.take(ENDS).read_to_end(&mut ends).ok()?;
        let time = [about.mtime() as u64, about.mtime_nsec() as u64];
        Some(Self([about.len(), time[0], time[1], checksum(&ends)]))
    }
}

/// Returns the path of the cache for the list at `path`.
fn place(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_string_lossy();
    Some(path.with_file_name(format!(".{name}.index")))
}

/// Returns the cached contents of the list at `path`, if they match `key` and are undamaged.
pub(super) fn load(path: &Path, key: Key) -> Option<Table> {
    let place = place(path)?;
    let length = plain_file(&place, "open").ok()?;
    let mut file = File::open(place).ok()?;
    let header: [u64; 9] = numbers(&mut file, 9)?.try_into().ok()?;
    let [magic, k0, k1, k2, k3, check, names_len, count, labeled] = header;
    if magic != MAGIC || Key([k0, k1, k2, k3]) != key || labeled > 1 {
        return None;
    }
    // Sizes are checked against the file before memory is allocated for them.
    let words = count.checked_mul(8)?.checked_add(labeled.checked_mul(count)?.checked_mul(4)?)?;
    let class_bytes = length.checked_sub(9 * 8)?.checked_sub(names_len.checked_add(words)?)?;
    let mut names = vec![0; usize::try_from(names_len).ok()?];
    file.read_exact(&mut names).ok()?;
    let mut ends = vec![0; usize::try_from(count.checked_mul(8)?).ok()?];
    file.read_exact(&mut ends).ok()?;
    let mut classes = vec![0; usize::try_from(labeled * count * 4).ok()?];
    file.read_exact(&mut classes).ok()?;
    let mut class_names = vec![0; usize::try_from(class_bytes).ok()?];
    file.read_exact(&mut class_names).ok()?;
    let found = [&names, &ends, &classes, &class_names].map(|part| checksum(part));
    if combine(found) != check {
        return None;
    }
    let ends = ends.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect();
    let classes = classes.as_chunks().0.iter().map(|&bytes| u32::from_le_bytes(bytes)).collect();
    let (class_names, notices) = serde_json::from_slice(&class_names).ok()?;
    let names = Names::new(String::from_utf8(names).ok()?, ends)?;
    Some(Table { names, classes, class_names, notices })
}

/// Writes the cache atomically. A failure is not an error: opening the list then takes as long as
/// before.
pub(super) fn store(path: &Path, key: Key, table: &Table) {
    let _ = try_store(path, key, table);
}

fn try_store(path: &Path, Key(key): Key, table: &Table) -> io::Result<()> {
    let Some(place) = place(path) else { return Ok(()) };
    let (names, ends) = table.names.parts();
    let ends: Vec<u8> = ends.iter().flat_map(|end| end.to_le_bytes()).collect();
    let classes: Vec<u8> = table.classes.iter().flat_map(|class| class.to_le_bytes()).collect();
    let class_names = serde_json::to_vec(&(&table.class_names, &table.notices))?;
    let parts = [names.as_bytes(), &ends, &classes, &class_names];
    let header = [
        MAGIC,
        key[0],
        key[1],
        key[2],
        key[3],
        combine(parts.map(checksum)),
        names.len() as u64,
        table.names.len() as u64,
        u64::from(!table.classes.is_empty()),
    ];
    let header: Vec<u8> = header.iter().flat_map(|number| number.to_le_bytes()).collect();
    let parts = [&header, parts[0], parts[1], parts[2], parts[3]];
    write_atomic_with(&place, |file| parts.iter().try_for_each(|part| file.write_all(part)))
}

fn numbers(file: &mut File, count: usize) -> Option<Vec<u64>> {
    let mut bytes = vec![0; 8 * count];
    file.read_exact(&mut bytes).ok()?;
    Some(bytes.as_chunks().0.iter().map(|&bytes| u64::from_le_bytes(bytes)).collect())
}

/// Computes a checksum that detects damage, but not tampering. It has four independent chains, so
/// that it runs at the speed of memory.
fn checksum(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mix = |state: u64, word: u64| (state ^ word).wrapping_mul(ODD).rotate_left(29);
    let mut states = [bytes.len() as u64, 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        for (state, word) in states.iter_mut().zip(block.as_chunks::<8>().0) {
            *state = mix(*state, u64::from_le_bytes(*word));
        }
    }
    let rest = rest.iter().fold(0, |state, &byte| mix(state, u64::from(byte)));
    combine([combine(states), rest, 0, 0])
}

fn combine(parts: [u64; 4]) -> u64 {
    parts.into_iter().fold(0, |sum: u64, part| {
        (sum.rotate_left(17) ^ part).wrapping_mul(0xD6E8_FEB8_6659_FD93).rotate_left(32)
    })
}
