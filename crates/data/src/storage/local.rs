//! Files on this machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Blob;
use crate::error::{Error, Result};

/// Returns the size of the file at `path`, which may be a link. Must be called before the file is
/// opened, because opening a pipe waits for a writer, and reading a device may never end.
///
/// # Errors
/// Returns an error if there is no such file, or if it is a pipe, a socket, a device, or a folder.
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
    file: Option<Kept>,
    len: u64,
}

/// A file that stays open.
#[derive(Debug)]
struct Kept(File);

/// Number of files that are kept open at present, by all sources together.
static KEPT: AtomicUsize = AtomicUsize::new(0);

impl Kept {
    /// Keeps the file open if fewer than `most` files are kept.
    fn new(file: File, most: usize) -> Option<Self> {
        let more = |kept: usize| (kept < most).then_some(kept + 1);
        KEPT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok().then(|| Self(file))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        KEPT.fetch_sub(1, Ordering::Relaxed);
    }
}

impl LocalFile {
    /// Maximum number of files that are kept open by all sources of the process.
    const MAX_OPEN: usize = 256;

    /// Opens the file at `path`. It is kept open if the limit allows it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |source| Error::Io { action: "open", path: path.into(), source };
        plain_file(path, "open")?;
        let file = File::open(path).map_err(io)?;
        let len = file.metadata().map_err(io)?.len();
        Ok(Self { path: path.into(), file: Kept::new(file, Self::MAX_OPEN), len })
    }

    /// Wraps an unnamed temporary file of `len` bytes that was made from the one at `path`. It is
    /// always kept open, because it could not be opened again.
    pub(super) fn nameless(path: &Path, file: File, len: u64) -> Self {
        Self { path: path.into(), file: Kept::new(file, usize::MAX), len }
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
            Some(Kept(file)) => file.read_exact_at(buffer, offset),
            None => File::open(&self.path)?.read_exact_at(buffer, offset),
        }
    }

    fn sibling(&self, suffix: &str) -> io::Result<Option<Vec<u8>>> {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        // Only a regular file can have been written as a sibling; anything else is ignored.
        match std::fs::metadata(&name).map(|about| about.is_file()) {
            Ok(true) => std::fs::read(name).map(Some),
            Ok(false) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_sources_together_keep_few_files_open_and_read_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "abc").unwrap();
        let open = || LocalFile::open(&path).unwrap();
        let files: Vec<LocalFile> = (0..2 * LocalFile::MAX_OPEN).map(|_| open()).collect();
        // Other tests may keep files open, too.
        assert!(files.iter().filter(|file| file.file.is_some()).count() <= LocalFile::MAX_OPEN);
        for file in &files {
            let mut bytes = [0; 2];
            file.read_at(1, &mut bytes).unwrap();
            assert_eq!(&bytes, b"bc");
        }
        drop(files);
        assert!((0..100).any(|_| open().file.is_some()), "there is room again");
    }
}
