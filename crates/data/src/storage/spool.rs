//! Stores the bytes of a stream for random access: in memory, up to a limit that all spools share,
//! and beyond it in a temporary file.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Blob, LocalFile};
use crate::error::{Error, Result};

/// The memory that all spools together may use, and the folder for the rest.
#[derive(Debug)]
pub(crate) struct SpoolLimits {
    memory_left: AtomicU64,
    folder: PathBuf,
}

impl SpoolLimits {
    /// Creates limits of up to `memory_gb` GB in memory, and of files in `folder` beyond that;
    /// `None` stands for the system's folder for temporary files.
    pub(crate) fn new(memory_gb: f64, folder: Option<&Path>) -> Self {
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_path_buf);
        Self { memory_left: AtomicU64::new((memory_gb * 1e9) as u64), folder }
    }

    /// Reserves this amount of memory, and returns whether it was available.
    fn take(&self, bytes: u64) -> bool {
        let left = |left: u64| left.checked_sub(bytes);
        self.memory_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.memory_left.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The bytes of one stream that have been stored so far.
#[derive(Debug)]
pub(crate) struct Spool<'a> {
    /// The stream's path, for messages.
    path: &'a Path,
    limits: &'a SpoolLimits,
    len: u64,
    memory: Vec<u8>,
    file: Option<BufWriter<File>>,
}

impl<'a> Spool<'a> {
    pub(crate) fn new(path: &'a Path, limits: &'a SpoolLimits) -> Self {
        Self { path, limits, len: 0, memory: Vec::new(), file: None }
    }

    /// Stores the next `size` bytes of `from` and returns their offset. If there are fewer, the
    /// error is `UnexpectedEof`.
    pub(crate) fn add(
        &mut self,
        from: &mut impl Read,
        size: u64,
    ) -> std::result::Result<u64, SpoolError> {
        let start = self.len;
        if self.file.is_none() && !self.limits.take(size) {
            self.move_to_file()?;
        }
        let mut from = from.take(size);
        let read = match &mut self.file {
            None => from.read_to_end(&mut self.memory).map_err(SpoolError::Read)? as u64,
            Some(file) => copy(&mut from, file, |error| self.limits.full(self.path, error))?,
        };
        if read != size {
            return Err(SpoolError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.len += size;
        Ok(start)
    }

    fn move_to_file(&mut self) -> Result<()> {
        let full = |error| self.limits.full(self.path, error);
        let mut file = BufWriter::new(tempfile::tempfile_in(&self.limits.folder).map_err(full)?);
        file.write_all(&self.memory).map_err(full)?;
        self.limits.give_back(self.len);
        self.memory = Vec::new();
        self.file = Some(file);
        Ok(())
    }

    /// Returns the stored bytes as a blob with random access.
    pub(crate) fn finish(mut self) -> Result<Box<dyn Blob>> {
        let full = |error| self.limits.full(self.path, error);
        let Some(file) = self.file else {
            self.memory.shrink_to_fit();
            return Ok(Box::new(Memory { path: self.path.into(), bytes: self.memory }));
        };
        let file = file.into_inner().map_err(|error| full(error.into_error()))?;
        Ok(Box::new(LocalFile::nameless(self.path, file, self.len)))
    }
}

impl SpoolLimits {
    fn full(&self, path: &Path, source: io::Error) -> Error {
        let path = path.into();
        match source.raw_os_error() {
            // ENFILE (limit of the system) and EMFILE (limit of this process).
            Some(23 | 24) => Error::SpillFiles { path, source },
            _ => Error::Spill { path, folder: self.folder.clone(), source },
        }
    }
}

/// The side of a copy that failed.
#[derive(Debug)]
pub(crate) enum SpoolError {
    /// The stream that is read.
    Read(io::Error),
    /// The destination.
    Write(Error),
}

impl From<Error> for SpoolError {
    fn from(error: Error) -> Self {
        Self::Write(error)
    }
}

/// Like `io::copy`, but distinguishes a failing reader from a failing writer.
fn copy(
    from: &mut impl Read,
    to: &mut impl Write,
    full: impl Fn(io::Error) -> Error,
) -> std::result::Result<u64, SpoolError> {
    let (mut buffer, mut total) = (vec![0; 64 << 10], 0);
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Read(error)),
        };
        to.write_all(&buffer[..count]).map_err(|error| SpoolError::Write(full(error)))?;
        total += count as u64;
    }
}

/// Bytes in memory.
#[derive(Debug)]
pub(crate) struct Memory {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Blob for Memory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let bytes = self.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn sibling(&self, _suffix: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_open_files_are_no_full_disk() {
        let limits = SpoolLimits::new(0.0, None);
        let said = |number: i32| {
            limits.full(Path::new("a.tar.gz"), io::Error::from_raw_os_error(number)).to_string()
        };
        assert!(said(24).contains("ulimit -n") && !said(24).contains("data.spill_dir"));
        assert!(said(28).contains("data.spill_dir"));
    }
}
