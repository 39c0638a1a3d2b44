//! Reads a blob as a stream with a position.

use std::io::{self, Read, Seek, SeekFrom};

use super::Blob;

/// Maximum size of a block, in multiples of the blob's own block size.
const GROWTH: usize = 32;

/// Reads a blob from front to back, one block at a time. Seeking reads nothing.
#[derive(Debug)]
pub(crate) struct Cursor<'a> {
    blob: &'a dyn Blob,
    position: u64,
    /// The most recently read block, and the `start` of it in the blob.
    block: Vec<u8>,
    start: u64,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(blob: &'a dyn Blob) -> Self {
        Self { blob, position: 0, block: Vec::new(), start: 0 }
    }

    /// Returns the size of the next block: twice that of the last one if reading continues directly
    /// after it, so that a long stream takes few large reads.
    fn next_block(&self) -> usize {
        let smallest = self.blob.block();
        let goes_on = self.position == self.start + self.block.len() as u64;
        match goes_on && !self.block.is_empty() {
            true => (2 * self.block.len()).clamp(smallest, GROWTH * smallest),
            false => smallest,
        }
    }

    /// Returns the part of the block at or after the position.
    fn buffered(&self) -> &[u8] {
        let at = self.position.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.block.get(at..)).unwrap_or_default()
    }
}

impl Read for Cursor<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len().saturating_sub(self.position);
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.buffered().is_empty() {
            let size = self.next_block() as u64;
            self.block.resize(left.min(size) as usize, 0);
            self.start = self.position;
            if let Err(error) = self.blob.read_at(self.position, &mut self.block) {
                self.block.clear();
                return Err(error);
            }
        }
        let found = self.buffered();
        let count = found.len().min(buffer.len());
        buffer[..count].copy_from_slice(&found[..count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Seek for Cursor<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.blob.len().checked_add_signed(by),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}
