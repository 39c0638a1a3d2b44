//! Weights that are split over several files, and the index that maps tensors to files.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::{Error, Result};

/// Ending of an index: `model.safetensors.index.json`, `pytorch_model.bin.index.json`.
const INDEX: &str = ".index.json";

/// The contents of an index; its other entries are sums.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Returns whether a path is that of an index.
pub fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(INDEX))
}

/// Returns whether a path is that of one of several parts, as libraries name them:
/// `model-00001-of-00003.safetensors`.
pub fn is_part(path: &Path) -> bool {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let number = |text: &str| text.parse::<u32>().ok().filter(|_| text.len() == 5);
    let Some((front, count)) = stem.rsplit_once("-of-") else { return false };
    let index = front.rsplit_once('-').and_then(|(_, index)| number(index));
    index.is_some() && number(count).is_some_and(|count| count > 1)
}

/// Returns the files of an index, each with the tensors that it should contain.
pub(super) fn read(path: &Path) -> Result<BTreeMap<PathBuf, Vec<String>>> {
    let io = |source| Error::Io { action: "read", path: path.to_path_buf(), source };
    let bytes = fs::read(path).map_err(io)?;
    let index: Index = serde_json::from_slice(&bytes)
        .map_err(|error| of(path, format!("is not an index of weights: {error}")))?;
    let mut parts: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for (name, part) in index.weight_map {
        // This must be a name and not a path: nothing outside of the folder is opened.
        if Path::new(&part).file_name() != Some(part.as_ref()) {
            return Err(of(path, format!("names the part '{part}', which is not a file name")));
        }
        parts.entry(path.with_file_name(part)).or_default().push(name);
    }
    Ok(parts)
}

fn of(path: &Path, problem: String) -> Error {
    Error::Parts { path: path.to_path_buf(), problem }
}

/// Returns the error for a part that cannot be opened; a missing one is described in terms of the
/// index.
pub(super) fn absent(index: &Path, part: &Path, error: Error) -> Error {
    match error {
        Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            let part = part.display();
            of(index, format!("its part {part} is missing; fetch it into the same folder"))
        }
        other => other,
    }
}

/// Returns the error for a part that does not contain what the index states.
pub(super) fn lacks(index: &Path, part: &Path, name: &str) -> Error {
    let part = part.display();
    of(
        index,
        format!("{name} should be in {part}, but is not; fetch that part and the index again"),
    )
}

/// Returns the error for an empty index.
pub(super) fn names_nothing(index: &Path) -> Error {
    of(index, "lists no tensors".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_indexes_are_known_by_their_names() {
        let check = |path: &str| (is_index(path.as_ref()), is_part(path.as_ref()));
        assert_eq!(check("a/model.safetensors.index.json"), (true, false));
        assert_eq!(check("pytorch_model-00002-of-00003.bin"), (false, true));
        for whole in ["model-00001-of-00001.safetensors", "model.safetensors", "one-of-two.pth"] {
            assert_eq!(check(whole), (false, false), "{whole}");
        }
    }
}
