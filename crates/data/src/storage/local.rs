//! A file on this machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use super::Blob;
use crate::error::{Error, Result};

/// Returns the size of the file at `path`, which may be a link. Call it before a file is opened:
/// opening a pipe waits for a writer, and reading a device may never end.
///
/// # Errors
/// Returns an error if there is none, or if it is a pipe, a socket, a device, or a folder.
pub(crate) fn plain_file(path: &Path, action: &'static str) -> Result<u64> {
    let io = |source| Error::Io { action, path: path.into(), source };
    let about = std::fs::metadata(path).map_err(io)?;
    let kind = about.file_type();
    let what = match () {
        () if kind.is_file() => return Ok(about.len()),
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_socket() => "a socket",
        () => "a device",
    };
    Err(Error::Path { path: path.into(), problem: format!("{what}, not a file") })
}

/// A file that is either kept open or opened for each read, because the number of open files per
/// process is limited.
#[derive(Debug)]
pub(crate) struct LocalFile {
    path: PathBuf,
    file: Option<File>,
    len: u64,
}

impl LocalFile {
    /// Maximum number of files of a set that are kept open.
    pub(crate) const MAX_OPEN: usize = 256;

    /// The file at `path`.
    pub(crate) fn open(path: &Path, keep_open: bool) -> Result<Self> {
        let io = |source| Error::Io { action: "open", path: path.into(), source };
        plain_file(path, "open")?;
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self { path: path.into(), file: keep_open.then_some(file), len })
    }

    /// `len` bytes of an unnamed file, made from the one at `path`.
    pub(super) fn nameless(path: &Path, file: File, len: u64) -> Self {
        Self { path: path.into(), file: Some(file), len }
    }
}

impl Blob for LocalFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(buffer, offset),
            None => File::open(&self.path)?.read_exact_at(buffer, offset),
        }
    }

    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>> {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        // A folder, a pipe, or a device with that name was not written beside this file.
        match std::fs::metadata(&name).map(|about| about.is_file()) {
            Ok(true) => std::fs::read(name).map(Some),
            Ok(false) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
