//! The header of a safetensors file: the list of tensors and their positions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, TensorInfo};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use tch::Kind;

use super::stored::{Extent, StoredTensor};

/// Longest accepted header in bytes; that of the largest network takes less than 100 KB.
const MAX_HEADER: u64 = 32 << 20;
/// Largest number of tensors in a file.
const MAX_TENSORS: usize = 65_536;
/// Key under which the format keeps its metadata.
pub(super) const METADATA_KEY: &str = "__metadata__";

/// The contents of a header.
pub(super) struct Header {
    pub(super) tensors: BTreeMap<String, StoredTensor>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// Reasons why a header cannot be used.
pub(super) enum HeaderError {
    Io(io::Error),
    Format(SafeTensorError),
    /// A dtype that libtorch or simdino does not support.
    Kind(String, Dtype),
    /// A size that libtorch does not support.
    Shape(String, Vec<usize>),
}

impl From<SafeTensorError> for HeaderError {
    fn from(error: SafeTensorError) -> Self {
        Self::Format(error)
    }
}

/// Reads the header at the start of `file` and checks that its tensors fill the rest of the file
/// without gaps or overlaps.
pub(super) fn read(mut file: &File) -> Result<Header, HeaderError> {
    let file_len = file.metadata().map_err(HeaderError::Io)?.len();
    if file_len < 8 {
        return Err(SafeTensorError::HeaderTooSmall.into());
    }
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(HeaderError::Io)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER {
        return Err(SafeTensorError::HeaderTooLarge.into());
    }
    if len > file_len - 8 {
        return Err(SafeTensorError::InvalidHeaderLength.into());
    }
    let mut text = vec![0; len as usize];
    file.read_exact(&mut text).map_err(HeaderError::Io)?;
    let raw: RawHeader =
        serde_json::from_slice(&text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    drop(text);
    place(raw, 8 + len, file_len)
}

/// Checks that the tensors leave no gaps, and converts their offsets to positions in the file.
fn place(raw: RawHeader, start: u64, file_len: u64) -> Result<Header, HeaderError> {
    let mut order: Vec<usize> = (0..raw.tensors.len()).collect();
    order.sort_by_key(|&i| raw.tensors[i].1.data_offsets);
    let mut at = 0;
    for i in order {
        let (name, info) = &raw.tensors[i];
        let (from, to) = info.data_offsets;
        if from != at || to < from {
            return Err(SafeTensorError::InvalidOffset(name.clone()).into());
        }
        let count = info.shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        let bits = count.and_then(|count| count.checked_mul(info.dtype.bitsize()));
        let bits = bits.ok_or(SafeTensorError::ValidationOverflow)?;
        if (to - from).checked_mul(8) != Some(bits) {
            return Err(SafeTensorError::TensorInvalidInfo.into());
        }
        at = to;
    }
    if (at as u64).checked_add(start) != Some(file_len) {
        return Err(SafeTensorError::MetadataIncompleteBuffer.into());
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in raw.tensors {
        let kind =
            kind_of(info.dtype).ok_or_else(|| HeaderError::Kind(name.clone(), info.dtype))?;
        let shape: Result<Vec<_>, _> = info.shape.iter().map(|&n| i64::try_from(n)).collect();
        let shape = shape.map_err(|_| HeaderError::Shape(name.clone(), info.shape.clone()))?;
        let (from, to) = info.data_offsets;
        let storage = Extent { offset: start + from as u64, len: (to - from) as u64 };
        tensors.insert(name, StoredTensor::contiguous(kind, shape, storage));
    }
    Ok(Header { tensors, metadata: raw.metadata })
}

/// The raw JSON. It is read entry by entry, so that it uses no more memory than it contains.
#[derive(Default)]
struct RawHeader {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for RawHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object with an entry for each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawHeader, A::Error> {
                let mut header = RawHeader::default();
                let mut seen = BTreeSet::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name == METADATA_KEY {
                        header.metadata = map.next_value::<Option<_>>()?.unwrap_or_default();
                        continue;
                    }
                    if header.tensors.len() == MAX_TENSORS {
                        return Err(A::Error::custom(format_args!(
                            "more than {MAX_TENSORS} tensors"
                        )));
                    }
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format_args!("{name} occurs twice")));
                    }
                    header.tensors.push((name, map.next_value()?));
                }
                Ok(header)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// Returns the libtorch kind for a dtype.
pub(super) fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::I32 => Kind::Int,
        Dtype::I16 => Kind::Int16,
        Dtype::I8 => Kind::Int8,
        Dtype::U8 => Kind::Uint8,
        Dtype::BOOL => Kind::Bool,
        _ => return None,
    })
}
