//! Locates the weight file for a path.

use std::fs;
use std::path::{Path, PathBuf};

use super::parts::{is_index, is_part};
use super::roles::Role;
use crate::error::{Error, Result};

/// File names that libraries use in a model folder, in order of precedence.
const FILES: [&str; 4] = [
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
];

/// Returns the weight file, or the index of several, for a path. A file stands for itself. In a
/// folder, these are the weights of a run of simdino (`weights/teacher.safetensors`), of a
/// checkpoint (`teacher.safetensors` or `student.safetensors`), or of an exported or downloaded
/// model.
///
/// # Errors
/// Returns [`Error::NoSuchFile`] if nothing exists at the path; [`Error::Parts`] for one part of
/// several, parts without their index, or several indexes; [`Error::NoWeights`] for a folder
/// without any of these.
pub fn find(path: &Path, role: Role) -> Result<PathBuf> {
    if path.is_file() {
        if is_part(path) {
            let what = "is one of several parts: pass their index (*.index.json) or the folder";
            return Err(parts(path, what));
        }
        return Ok(path.to_owned());
    }
    if !path.exists() {
        return Err(Error::NoSuchFile { path: path.to_owned() });
    }
    let of_checkpoint = role.file_name();
    let of_run = PathBuf::from("weights").join(of_checkpoint);
    let names = [&of_run, Path::new(of_checkpoint)].into_iter().chain(FILES.map(Path::new));
    if let Some(file) = names.map(|name| path.join(name)).find(|file| file.is_file()) {
        return Ok(file);
    }
    other_index(path)?.ok_or_else(|| Error::NoWeights { path: path.to_owned() })
}

/// Returns the only index of a folder, under any name; parts without an index are an error.
fn other_index(folder: &Path) -> Result<Option<PathBuf>> {
    let io = |source| Error::Io { action: "read", path: folder.to_owned(), source };
    let entries = fs::read_dir(folder).map_err(io)?;
    let files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let mut indexes: Vec<&PathBuf> = files.iter().filter(|file| is_index(file)).collect();
    indexes.sort();
    match indexes[..] {
        [index] => Ok(Some(index.clone())),
        [] if files.iter().any(|file| is_part(file)) => {
            let what = "has parts of weights, but not their index (*.index.json): fetch it too";
            Err(parts(folder, what))
        }
        [] => Ok(None),
        _ => Err(parts(folder, "contains several indexes of weights: pass one of them")),
    }
}

fn parts(path: &Path, problem: &str) -> Error {
    Error::Parts { path: path.to_owned(), problem: problem.to_owned() }
}
