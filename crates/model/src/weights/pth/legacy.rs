//! The format of `torch.save` before 1.6, which it still writes on request: five consecutive
//! pickles, followed by the storages.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use super::contents::{Contents, MAX_PICKLE, Packing, arena_budget};
use super::error::{PthError, Result};
use super::values::{Node, Pickle};
use super::{machine, tree};
use crate::weights::stored::Extent;

/// The number in the first pickle, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// Number of bytes read at first. If the pickles are longer, it is multiplied by four until they
/// fit.
const FIRST_CHUNK: u64 = 1 << 20;

/// Reads the pickles and locates the storages.
pub(super) fn read(file: &mut File, len: u64) -> Result<Contents> {
    let mut chunk = FIRST_CHUNK;
    loop {
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::with_capacity(chunk.min(len) as usize);
        file.by_ref().take(chunk).read_to_end(&mut bytes)?;
        match parse(&bytes, file, len) {
            Err(PthError::Truncated(what)) if chunk < len => {
                if chunk >= MAX_PICKLE {
                    let limit = MAX_PICKLE as usize;
                    return Err(PthError::Limit { what: "bytes of pickle", limit });
                }
                let _ = what; // the chunk is cut off, not the file
                chunk *= 4;
            }
            other => return other,
        }
    }
}

fn parse(bytes: &[u8], file: &mut File, len: u64) -> Result<Contents> {
    let budget = arena_budget(len) / 2; // at most two pickles are in memory at a time
    let mut at = 0;
    let mut next = || -> Result<Pickle<'_>> {
        let pickle = machine::run(&bytes[at..], budget)?;
        at += pickle.len;
        Ok(pickle)
    };
    check_magic(&next()?)?;
    next()?; // version of the protocol
    check_byte_order(&next()?)?;
    let contents = next()?;
    let keys = next()?;
    let sizes = sizes(&contents, &keys)?;
    let places = places(file, at as u64, len, &sizes)?;
    let find_storage = |key: &str, bytes: u64| {
        let extent = places.get(key).ok_or_else(|| PthError::Missing(format!("storage {key}")))?;
        if extent.len < bytes { Err(PthError::Truncated("a storage")) } else { Ok(*extent) }
    };
    let found = tree::collect(&contents, &find_storage)?;
    Ok(Contents { packing: Packing::Legacy, tensors: found.tensors, values: found.values })
}

fn check_magic(pickle: &Pickle<'_>) -> Result<()> {
    match pickle.node(pickle.root) {
        Node::Long(range) if pickle.slice(range) == MAGIC => Ok(()),
        _ => Err(PthError::Format("it is a pickle of another kind")),
    }
}

fn check_byte_order(pickle: &Pickle<'_>) -> Result<()> {
    let Node::Dict(items) = pickle.node(pickle.root) else { return Ok(()) };
    let mut pairs = items.chunks_exact(2);
    let order = pairs.find(|pair| pickle.text(pair[0]) == Some("little_endian"));
    match order.map(|pair| pickle.node(pair[1])) {
        Some(Node::Bool(false)) => Err(PthError::BigEndian),
        _ => Ok(()),
    }
}

/// Returns the keys of the storages in the order of the file, and the element size of each.
fn sizes<'a>(contents: &Pickle<'a>, keys: &Pickle<'a>) -> Result<Vec<(&'a str, u64)>> {
    let widths = contents.storage_widths();
    let listed = keys.sequence(keys.root).unwrap_or_default();
    if listed.len() > tree::MAX_TENSORS {
        return Err(PthError::Limit { what: "storages", limit: tree::MAX_TENSORS });
    }
    let mut sizes = Vec::new();
    for &key in listed {
        let key = keys.text(key).ok_or(PthError::Format("a storage has no key"))?;
        let width = widths.get(key);
        sizes.push((key, *width.ok_or(PthError::Format("a storage is not used by any tensor"))?));
    }
    Ok(sizes)
}

/// Locates each storage, which consists of its number of elements followed by the elements.
fn places<'a>(
    file: &mut File,
    start: u64,
    len: u64,
    sizes: &[(&'a str, u64)],
) -> Result<HashMap<&'a str, Extent>> {
    let mut places = HashMap::new();
    let mut at = start;
    for &(key, width) in sizes {
        let mut count = [0; 8];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut count).map_err(|_| PthError::Missing(format!("storage {key}")))?;
        let bytes = u64::from_le_bytes(count).checked_mul(width);
        let offset = at + 8;
        let end = bytes.and_then(|bytes| offset.checked_add(bytes)).filter(|&end| end <= len);
        let end = end.ok_or_else(|| PthError::Missing(format!("the end of storage {key}")))?;
        places.insert(key, Extent { offset, len: end - offset });
        at = end;
    }
    Ok(places)
}
