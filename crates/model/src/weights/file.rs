//! A file with tensors, in any supported format.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tch::{Kind, TchError, Tensor};

use super::header::{self, HeaderError};
use super::parts;
use super::pth;
use super::stored::StoredTensor;
use crate::error::{Error, Result};

/// The format of a file with tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// safetensors.
    Safetensors,
    /// A zip archive written by `torch.save`.
    Pth,
    /// The format of `torch.save` before torch 1.6.
    PthLegacy,
}

/// Kind and shape of a tensor in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorInfo<'a> {
    /// Type of its elements.
    pub kind: Kind,
    /// Its shape.
    pub shape: &'a [i64],
}

/// An open file with tensors, or several files joined by an index. It knows their names and
/// shapes; elements are read on request.
///
/// Nothing in a file is executed: pickles of `torch.save` are read as data, and objects of unknown
/// classes stay opaque. Files are not trusted: reading uses at most twice the size of the file in
/// memory, plus 16 MiB.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    /// The file, or its parts.
    files: Vec<Part>,
    format: FileFormat,
    /// Each tensor, and the file that contains it.
    tensors: BTreeMap<String, (usize, StoredTensor)>,
    entries: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
}

impl TensorFile {
    /// Opens a safetensors or `torch.save` file, detected from its first bytes, or the index
    /// (`*.index.json`) of several files.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, has a different format, or is damaged, or if
    /// parts of an index are missing or lack a tensor. Every error names the file.
    pub fn open(path: &Path) -> Result<Self> {
        if parts::is_index(path) { Self::indexed(path) } else { Self::single(path) }
    }

    /// Opens one file.
    fn single(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
        let mut file = File::open(path).map_err(io)?;
        let mut head = Vec::with_capacity(9);
        file.by_ref().take(9).read_to_end(&mut head).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        // A safetensors file begins with a length, which may look like the start of a pickle, so
        // the JSON after it decides.
        let json = head.get(8) == Some(&b'{');
        if !json && pth::looks_like(&head) {
            let contents = pth::read(&mut file)
                .map_err(|source| Error::Pth { path: path.to_path_buf(), source })?;
            let format = match contents.packing {
                pth::Packing::Zip => FileFormat::Pth,
                pth::Packing::Legacy => FileFormat::PthLegacy,
            };
            return Ok(Self::of(path, file, format, contents.tensors, contents.values));
        }
        Self::safetensors(path, file)
    }

    /// Opens all parts of an index.
    fn indexed(path: &Path) -> Result<Self> {
        let wanted = parts::read(path)?;
        let mut whole: Option<Self> = None;
        for (part, names) in wanted {
            let opened = Self::single(&part).map_err(|error| parts::absent(path, &part, error))?;
            if let Some(name) = names.iter().find(|name| !opened.tensors.contains_key(*name)) {
                return Err(parts::lacks(path, &part, name));
            }
            match &mut whole {
                None => whole = Some(Self { path: path.to_path_buf(), ..opened }),
                Some(whole) => whole.append(opened, &names),
            }
        }
        whole.ok_or_else(|| parts::names_nothing(path))
    }

    /// Adds the tensors of another part. If both have a tensor, the index decides: `names` are the
    /// tensors it assigns to this part.
    fn append(&mut self, part: Self, names: &[String]) {
        let at = self.files.len();
        self.files.extend(part.files);
        for (name, (_, tensor)) in part.tensors {
            if names.contains(&name) || !self.tensors.contains_key(&name) {
                self.tensors.insert(name, (at, tensor));
            }
        }
        for (key, value) in part.entries {
            self.entries.entry(key).or_insert(value);
        }
    }

    fn of(
        path: &Path,
        file: File,
        format: FileFormat,
        tensors: BTreeMap<String, StoredTensor>,
        entries: BTreeMap<String, String>,
    ) -> Self {
        let path = path.to_path_buf();
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, (0, tensor))).collect();
        Self { files: vec![Part { path: path.clone(), file }], path, format, tensors, entries }
    }

    /// Opens a file that must be in the safetensors format.
    pub(super) fn open_safetensors(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
        Self::safetensors(path, File::open(path).map_err(io)?)
    }

    fn safetensors(path: &Path, file: File) -> Result<Self> {
        let header = header::read(&file).map_err(|error| of_header(path, error))?;
        Ok(Self::of(path, file, FileFormat::Safetensors, header.tensors, header.metadata))
    }

    /// Returns the path of the file or the index.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the format.
    pub fn format(&self) -> FileFormat {
        self.format
    }

    /// Returns names, kinds, and shapes of all tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, TensorInfo<'_>)> {
        self.tensors.iter().map(|(name, (_, tensor))| {
            (name.as_str(), TensorInfo { kind: tensor.kind, shape: &tensor.shape })
        })
    }

    /// Returns the kind and shape of one tensor, if there is one of this name.
    pub fn info(&self, name: &str) -> Option<TensorInfo<'_>> {
        let (_, tensor) = self.tensors.get(name)?;
        Some(TensorInfo { kind: tensor.kind, shape: &tensor.shape })
    }

    /// Returns what the file contains besides tensors: the metadata of safetensors, or numbers,
    /// strings, and names of opaque classes in a pickle (`args.arch`, `epoch`).
    pub fn entries(&self) -> &BTreeMap<String, String> {
        &self.entries
    }

    /// Returns the size in bytes of the elements of these tensors once they are read; tensors that
    /// share a storage are each counted.
    pub(super) fn num_bytes<'a>(&self, names: impl Iterator<Item = &'a str>) -> u64 {
        names
            .filter_map(|name| self.tensors.get(name))
            .fold(0, |sum: u64, (_, tensor)| sum.saturating_add(tensor.num_bytes()))
    }

    /// Returns the size in bytes of the file, or of all parts together.
    pub(super) fn len(&self) -> Result<u64> {
        self.files.iter().try_fold(0, |sum: u64, part| {
            let len = part.file.metadata().map_err(|source| part.io(source))?.len();
            Ok(sum.saturating_add(len))
        })
    }

    /// Reads one tensor, on the CPU.
    ///
    /// # Errors
    /// Returns an error if there is no tensor of this name or the file cannot be read.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let (part, tensor) = self.stored(name)?;
        tensor.read(&part.file).map_err(|source| part.of_tensor(name, tensor, source))
    }

    /// Reads one tensor into another of the same shape, of any kind and device.
    pub(super) fn read_into(&self, name: &str, tensor: &mut Tensor) -> Result<()> {
        let (part, stored) = self.stored(name)?;
        stored.read_into(&part.file, tensor).map_err(|source| part.of_tensor(name, stored, source))
    }

    fn stored(&self, name: &str) -> Result<(&Part, &StoredTensor)> {
        let found = self.tensors.get(name);
        let found = found.and_then(|(at, tensor)| Some((self.files.get(*at)?, tensor)));
        found.ok_or_else(|| Error::NoTensor { path: self.path.clone(), name: name.to_owned() })
    }
}

impl Part {
    fn io(&self, source: std::io::Error) -> Error {
        Error::Io { action: "read", path: self.path.clone(), source }
    }

    /// Returns the error for a tensor that could not be read. [`StoredTensor::read`] wraps errors
    /// of libtorch in I/O errors, so they are unwrapped here.
    fn of_tensor(&self, name: &str, stored: &StoredTensor, source: std::io::Error) -> Error {
        match source.downcast::<TchError>() {
            Ok(source) => {
                let tensor = format!("{name} of shape {:?}", stored.shape);
                Error::WeightsTensor { path: self.path.clone(), tensor, source }
            }
            Err(source) => self.io(source),
        }
    }
}

fn of_header(path: &Path, error: HeaderError) -> Error {
    let path = path.to_path_buf();
    match error {
        HeaderError::Io(source) => Error::Io { action: "read", path, source },
        HeaderError::Format(source) => Error::WeightsFile { path, source },
        HeaderError::Kind(name, dtype) => {
            Error::WeightsKind { path, name, dtype: dtype.to_string() }
        }
        HeaderError::Shape(name, shape) => {
            let tensor = format!("{name} of shape {shape:?}");
            let source = TchError::Shape("a dimension above 2^63".to_owned());
            Error::WeightsTensor { path, tensor, source }
        }
    }
}
