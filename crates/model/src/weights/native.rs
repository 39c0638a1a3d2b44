//! Reading and writing safetensors files.
//!
//! Writing is atomic: a reader sees the old file or the new one, never a part. The same tensors
//! and metadata give the same bytes. Reading trusts nothing: a broken file is an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorInfo, TensorView};
use tch::{Device, Kind, TchError, Tensor};

use crate::error::{Error, Result};

/// Key under which the format keeps its metadata.
const METADATA_KEY: &str = "__metadata__";
/// The header is padded with spaces to a multiple of this, so that data is aligned.
const ALIGNMENT: usize = 8;

/// What a weight file holds.
#[derive(Debug)]
pub struct WeightsFile {
    /// Tensors by name, on the CPU.
    pub tensors: BTreeMap<String, Tensor>,
    /// Free text by key: source, licence, configuration.
    pub metadata: BTreeMap<String, String>,
}

/// Writes tensors (any device, any stride) and metadata to `path`: into a temporary file beside
/// it, flushed to disk, then renamed over it.
///
/// # Errors
/// A dtype other than f32, f64, f16, bf16, i64, u8; a name used twice; the file system's refusal.
pub fn write_safetensors(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &BTreeMap<String, String>,
) -> Result<()> {
    let io = |action| move |source| Error::Io { action, path: path.to_path_buf(), source };
    let ordered = file_order(path, tensors)?;
    let header = encode_header(path, &ordered, metadata)?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temporary = temporary_file(folder).map_err(io("create a temporary file beside"))?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file_mut());
    writer.write_all(&(header.len() as u64).to_le_bytes()).map_err(io("write"))?;
    writer.write_all(&header).map_err(io("write"))?;
    for entry in &ordered {
        writer.write_all(&bytes(entry.tensor)?).map_err(io("write"))?;
    }
    writer.flush().map_err(io("write"))?;
    drop(writer);
    temporary.as_file().sync_all().map_err(io("flush"))?;
    temporary.persist(path).map_err(|e| io("rename the finished file to")(e.error))?;
    sync_folder(folder).map_err(io("flush the folder of"))
}

/// Reads a whole file.
///
/// # Errors
/// A file that cannot be read, is no valid safetensors, or holds another dtype than
/// f32, f64, f16, bf16, i64, u8. Every error names the file.
pub fn read_safetensors(path: &Path) -> Result<WeightsFile> {
    let buffer = fs::read(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    let broken = |source| Error::WeightsFile { path: path.to_path_buf(), source };
    let (_, header) = SafeTensors::read_metadata(&buffer).map_err(broken)?;
    let file = SafeTensors::deserialize(&buffer).map_err(broken)?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        tensors.insert(name.to_owned(), to_tensor(path, name, &view)?);
    }
    let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
    Ok(WeightsFile { tensors, metadata })
}

struct Entry<'a> {
    name: &'a str,
    tensor: &'a Tensor,
    dtype: Dtype,
}

/// Wide dtypes first, so that every tensor starts at a multiple of its element, then by name.
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

/// The JSON header. Written by hand because the library's own keeps metadata in random order.
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

/// The elements in row-major order, little-endian as the format wants (and as every machine that
/// libtorch runs on has them).
fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
    let mut bytes = vec![0; tensor.numel() * tensor.kind().elt_size_in_bytes()];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

fn to_tensor(path: &Path, name: &str, view: &TensorView<'_>) -> Result<Tensor> {
    let kind = kind_of(view.dtype()).ok_or_else(|| Error::WeightsKind {
        path: path.to_path_buf(),
        name: name.to_owned(),
        dtype: view.dtype().to_string(),
    })?;
    let shape =
        view.shape().iter().map(|&n| i64::try_from(n)).collect::<std::result::Result<Vec<_>, _>>();
    let shape = shape.map_err(|_| TchError::Shape("a dimension above 2^63".to_owned()));
    shape.and_then(|shape| Tensor::f_from_data_size(view.data(), &shape, kind)).map_err(|source| {
        let tensor = format!("{name} of shape {:?}", view.shape());
        Error::WeightsTensor { path: path.to_path_buf(), tensor, source }
    })
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

fn kind_of(dtype: Dtype) -> Option<Kind> {
    Some(match dtype {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::F16 => Kind::Half,
        Dtype::BF16 => Kind::BFloat16,
        Dtype::I64 => Kind::Int64,
        Dtype::U8 => Kind::Uint8,
        _ => return None,
    })
}

/// A temporary file in `folder` with the permissions of an ordinary new file.
fn temporary_file(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".weights-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(fs::Permissions::from_mode(0o666)); // the umask takes from it
    }
    builder.tempfile_in(folder)
}

/// Makes a rename durable, where folders can be flushed.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}
