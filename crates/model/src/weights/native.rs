//! Reading and writing safetensors files.
//!
//! Writing is atomic: a reader sees either the old file or the new one, never part of one. The
//! same tensors and metadata give the same bytes. Files are not trusted when they are read: a
//! damaged file is an error.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use base::write_atomic_with;
use safetensors::tensor::{Dtype, TensorInfo};
use tch::{Device, Kind, Tensor};

use super::file::TensorFile;
use super::header::METADATA_KEY;
use crate::error::{Error, Result};

/// The header is padded with spaces to a multiple of this, so that data is aligned.
const ALIGNMENT: usize = 8;

/// The contents of a weight file.
#[derive(Debug)]
pub struct WeightsFile {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by key, for example source, license, configuration.
    pub metadata: BTreeMap<String, String>,
}

/// Writes tensors (on any device, with any stride) and metadata to `path`: into a temporary file
/// beside it, which is flushed to disk and then renamed.
///
/// # Errors
/// Returns an error if a dtype is not f32, f64, f16, bf16, i64, or u8, if a name occurs twice, or
/// if writing fails.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let ordered = file_order(path, tensors)?;
    let header = encode_header(path, &ordered, metadata)?;
    let write = |file: &mut dyn Write, bytes: &[u8]| file.write_all(bytes).map_err(Unwritten::Io);
    let written = write_atomic_with(path, |file| {
        write(file, &(header.len() as u64).to_le_bytes())?;
        write(file, &header)?;
        for entry in &ordered {
            write(file, &bytes(entry.tensor).map_err(Unwritten::Tensor)?)?;
        }
        Ok(())
    });
    written.map_err(|error| match error {
        Unwritten::Io(source) => Error::Io { action: "write", path: path.to_path_buf(), source },
        Unwritten::Tensor(error) => error,
    })
}

/// Reasons why a file could not be written.
enum Unwritten {
    Io(std::io::Error),
    Tensor(Error),
}

impl From<std::io::Error> for Unwritten {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads a whole file.
///
/// # Errors
/// Returns an error if the file cannot be read, is not valid safetensors, or contains a dtype
/// other than floats, integers, and bool of at most 64 bits. Every error names the file.
pub fn read_safetensors(path: &Path) -> Result<WeightsFile> {
    let file = TensorFile::open_safetensors(path)?;
    let mut tensors = BTreeMap::new();
    for (name, _) in file.tensors() {
        tensors.insert(name.to_owned(), file.read(name)?);
    }
    Ok(WeightsFile { tensors, metadata: file.entries().clone() })
}

struct Entry<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    dtype: Dtype,
}

/// Sorts wide dtypes first, so that every tensor starts at a multiple of its element size, then by
/// name.
fn file_order<'a>(path: &Path, tensors: &'a [(String, Tensor)]) -> Result<Vec<Entry<'a>>> {
    let mut ordered = BTreeMap::new();
    for (name, tensor) in tensors {
        let kind = tensor.kind();
        let dtype = dtype_of(kind).ok_or_else(|| Error::WeightsKind {
            path: path.to_path_buf(),
            name: name.clone(),
            dtype: format!("{kind:?}"),
        })?;
        let key = (std::cmp::Reverse(dtype), name.as_str());
        let twice = ordered.insert(key, Entry { name, tensor, dtype }).is_some();
        if twice || name == METADATA_KEY {
            return Err(Error::WeightsName { path: path.to_path_buf(), name: name.clone() });
        }
    }
    Ok(ordered.into_values().collect())
}

/// Encodes the JSON header. This is done by hand because the library's own code writes metadata in
/// random order.
fn encode_header(
    path: &Path,
    ordered: &[Entry<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>> {
    let failed = |source| Error::WeightsHeader { path: path.to_path_buf(), source };
    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let value = serde_json::to_value(metadata).map_err(failed)?;
        header.insert(METADATA_KEY.to_owned(), value);
    }
    let mut offset = 0;
    for entry in ordered {
        let end = offset + entry.tensor.numel() * entry.tensor.kind().elt_size_in_bytes();
        let shape = entry.tensor.size().iter().map(|&n| n as usize).collect();
        let info = TensorInfo { dtype: entry.dtype, shape, data_offsets: (offset, end) };
        let value = serde_json::to_value(&info).map_err(failed)?;
        if header.insert(entry.name.to_owned(), value).is_some() {
            let name = entry.name.to_owned();
            return Err(Error::WeightsName { path: path.to_path_buf(), name });
        }
        offset = end;
    }
    let mut encoded = serde_json::to_vec(&header).map_err(failed)?;
    encoded.resize(encoded.len().next_multiple_of(ALIGNMENT), b' ');
    Ok(encoded)
}

/// Returns the elements in row-major order, little-endian as the format requires (and as on every
/// machine that libtorch supports).
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

fn dtype_of(kind: Kind) -> Option<Dtype> {
    Some(match kind {
        Kind::Float => Dtype::F32,
        Kind::Double => Dtype::F64,
        Kind::Half => Dtype::F16,
        Kind::BFloat16 => Dtype::BF16,
        Kind::Int64 => Dtype::I64,
        Kind::Uint8 => Dtype::U8,
        _ => return None,
    })
}
