//! Lists and reads the files of a folder, which may be inside a tar file.

use std::fmt::Write;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use decode::MAX_IMAGE_BYTES;
use walkdir::WalkDir;

use crate::error::{Error, Result};

/// A file of a listed folder.
#[derive(Debug, Clone)]
pub(super) struct FoundFile {
    /// Path relative to the folder, with `/` as separator.
    pub(super) name: String,
    pub(super) place: Place,
}

/// Where the bytes of a file are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    InTar {
        tar: Arc<PathBuf>,
        /// Path within the archive, which only errors need.
        member: PathBuf,
        start: u64,
        bytes: u64,
    },
}

impl Place {
    /// Returns the number of bytes; 0 if it cannot be determined.
    pub(super) fn bytes(&self) -> u64 {
        match self {
            Self::File(path) => path.metadata().map_or(0, |data| data.len()),
            Self::InTar { bytes, .. } => *bytes,
        }
    }

    /// Reads all bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let (most, bytes) = (MAX_IMAGE_BYTES, self.bytes());
        if bytes > most {
            let problem = format!(
                "the file has {} MiB, more than the limit of {} MiB",
                bytes >> 20,
                most >> 20
            );
            return Err(Error::Path { path: self.path(), problem });
        }
        let read = || match self {
            Self::File(path) => std::fs::read(path),
            Self::InTar { tar, start, bytes, .. } => {
                let mut file = File::open(tar.as_path())?;
                file.seek(SeekFrom::Start(*start))?;
                let mut content = vec![0; *bytes as usize];
                file.read_exact(&mut content).map(|()| content)
            }
        };
        read().map_err(|source| Error::Io { action: "read", path: self.path(), source })
    }

    /// Returns the path of the file. An archive counts as a folder.
    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::InTar { tar, member, .. } => tar.join(member),
        }
    }
}

/// Lists all files below `folder`, sorted by name. Files and folders whose names begin with a dot
/// are skipped.
pub(super) fn list(folder: &Path) -> Result<Vec<FoundFile>> {
    if folder.is_dir() {
        return list_folder(folder);
    }
    let tar = folder.ancestors().find(|path| path.is_file());
    match tar.and_then(|tar| Some((tar, folder.strip_prefix(tar).ok()?))) {
        Some((tar, inside)) if tar.extension().is_some_and(|end| end == "tar") => {
            list_tar(tar, inside)
        }
        _ => {
            let problem = "no such folder, neither on disk nor inside a .tar file".to_owned();
            Err(Error::Path { path: folder.into(), problem })
        }
    }
}

fn list_folder(folder: &Path) -> Result<Vec<FoundFile>> {
    let mut files = Vec::new();
    let visible = |entry: &walkdir::DirEntry| {
        entry.depth() == 0 || !entry.file_name().to_string_lossy().starts_with('.')
    };
    let walk = WalkDir::new(folder).follow_links(true).sort_by_file_name().into_iter();
    for entry in walk.filter_entry(visible) {
        let entry = match entry {
            Ok(entry) => entry,
            // This is a symlink to one of its ancestors, whose contents are listed anyway.
            Err(error) if error.loop_ancestor().is_some() => continue,
            Err(error) => {
                let path = error.path().unwrap_or(folder).to_path_buf();
                if path.is_symlink() {
                    continue; // a dangling link is reported as a missing partner
                }
                return Err(Error::Io { action: "list", path, source: error.into() });
            }
        };
        if entry.file_type().is_file() {
            let path = entry.path();
            let name = name_of(path.strip_prefix(folder).unwrap_or(path));
            files.push(FoundFile { name, place: Place::File(path.to_path_buf()) });
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// Returns a path as text. Bytes that are not UTF-8 are escaped as `\xNN`, so that different paths
/// remain different.
fn name_of(path: &Path) -> String {
    let mut name = String::new();
    for part in path.as_os_str().as_encoded_bytes().utf8_chunks() {
        name.push_str(part.valid());
        part.invalid().iter().for_each(|byte| _ = write!(name, "\\x{byte:02x}"));
    }
    name
}

fn list_tar(tar: &Path, inside: &Path) -> Result<Vec<FoundFile>> {
    let broken = |source| Error::Shard { path: tar.into(), source };
    let file = File::open(tar).map_err(broken)?;
    let shared = Arc::new(tar.to_path_buf());
    let mut files = Vec::new();
    for entry in tar::Archive::new(file).entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let path = entry.path().map_err(broken)?.into_owned();
        let path = path.strip_prefix("./").unwrap_or(&path);
        let Ok(name) = path.strip_prefix(inside) else { continue };
        let name = name_of(name);
        let hidden = name.split('/').any(|part| part.starts_with('.'));
        if entry.header().entry_type().is_file() && !hidden {
            let (start, bytes) = (entry.raw_file_position(), entry.size());
            let (tar, member) = (Arc::clone(&shared), path.to_path_buf());
            let place = Place::InTar { tar, member, start, bytes };
            files.push(FoundFile { name, place });
        }
    }
    if files.is_empty() {
        let problem = format!("contains no files in the folder '{}'", inside.display());
        return Err(Error::Path { path: tar.into(), problem });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}
