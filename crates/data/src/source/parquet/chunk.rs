//! Locates the pages of column chunks and reads their bytes.

use std::io::{self, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Buf, Bytes};
use parquet::column::page::PageReader;
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::serialized_reader::SerializedPageReader;

use crate::storage::Blob;

/// Number of bytes requested at a time when only the short headers of pages are needed.
const HEADER_BYTES: usize = 8 << 10;

/// Locates the data pages of a column chunk with `rows` rows, from the page index of the file
/// (`told`) if that is valid, and otherwise by reading the headers one after the other.
pub(super) fn pages(
    blob: &Shared,
    chunk: &ColumnChunkMetaData,
    rows: usize,
    told: Option<&[PageLocation]>,
) -> Result<Vec<PageLocation>> {
    match told.filter(|pages| are_sound(pages, chunk, rows)) {
        Some(pages) => Ok(pages.to_vec()),
        None => walk(blob, chunk, rows),
    }
}

/// Returns whether the pages are inside the chunk, are in order, and cover its rows from the first
/// on.
fn are_sound(pages: &[PageLocation], chunk: &ColumnChunkMetaData, rows: usize) -> bool {
    let (start, length) = chunk.byte_range();
    let inside = |page: &PageLocation| {
        let (offset, size) = (page.offset as u64, page.compressed_page_size as u64);
        page.compressed_page_size > 0
            && offset >= start
            && offset.saturating_add(size) <= start.saturating_add(length)
    };
    let first = |page: &PageLocation| usize::try_from(page.first_row_index).unwrap_or(usize::MAX);
    pages.first().is_some_and(|page| page.first_row_index == 0)
        && pages.is_sorted_by(|a, b| first(a) < first(b) && a.offset < b.offset)
        && pages.last().is_some_and(|page| first(page) < rows)
        && pages.iter().all(inside)
}

fn walk(blob: &Shared, chunk: &ColumnChunkMetaData, rows: usize) -> Result<Vec<PageLocation>> {
    let headers = Arc::new(Headers { blob: blob.clone(), last: AtomicU64::new(0) });
    let mut reader = SerializedPageReader::new(headers.clone(), chunk, rows, None)?;
    let (mut pages, mut row) = (Vec::<PageLocation>::new(), 0);
    while let Some(page) = reader.peek_next_page()? {
        let offset = headers.last.load(Ordering::Relaxed);
        if !page.is_dict {
            // The columns read here have one value per row, so the number of levels is the number
            // of rows.
            let count = page.num_rows.or(page.num_levels).unwrap_or(0);
            let first_row_index = row as i64;
            pages.push(PageLocation {
                offset: offset as i64,
                compressed_page_size: 0,
                first_row_index,
            });
            row += count;
        }
        reader.skip_next_page()?;
    }
    let (start, length) = chunk.byte_range();
    let mut end = start + length;
    for page in pages.iter_mut().rev() {
        page.compressed_page_size = i32::try_from(end.saturating_sub(page.offset as u64))?;
        end = page.offset as u64;
    }
    match row == rows && are_sound(&pages, chunk, rows) {
        true => Ok(pages),
        false => Err(ParquetError::General(format!("its pages hold {row} of {rows} rows"))),
    }
}

/// Adapts a blob to the interface of the parquet reader.
#[derive(Clone)]
pub(super) struct Shared(pub(super) Arc<dyn Blob>);

impl Shared {
    fn stream(&self, start: u64, block: usize) -> BufReader<Stream> {
        BufReader::with_capacity(block, Stream { blob: self.0.clone(), position: start })
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Shared {
    type T = BufReader<Stream>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.stream(start, self.0.block()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        // The size comes from the file, so it is checked before memory is allocated for it.
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.len()) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length];
        self.0.read_at(start, &mut bytes)?;
        Ok(bytes.into())
    }
}

/// Records where the reader last started to read, which is the header of a page and which the
/// reader itself does not report.
struct Headers {
    blob: Shared,
    last: AtomicU64,
}

impl Length for Headers {
    fn len(&self) -> u64 {
        self.blob.len()
    }
}

impl ChunkReader for Headers {
    type T = BufReader<Stream>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        self.last.store(start, Ordering::Relaxed);
        Ok(self.blob.stream(start, HEADER_BYTES))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        self.blob.get_bytes(start, length)
    }
}

/// A whole column chunk in memory. For short columns, this takes one read instead of two per page.
pub(super) struct WholeChunk {
    start: u64,
    bytes: Bytes,
}

impl WholeChunk {
    pub(super) fn read(blob: &Shared, chunk: &ColumnChunkMetaData) -> Result<Self> {
        let (start, length) = chunk.byte_range();
        Ok(Self { start, bytes: blob.get_bytes(start, usize::try_from(length)?)? })
    }

    fn from(&self, start: u64) -> Result<Bytes> {
        let at = start.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let at = at.filter(|&at| at <= self.bytes.len());
        Ok(self.bytes.slice(at.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?..))
    }
}

impl Length for WholeChunk {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for WholeChunk {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.from(start)?;
        match length <= bytes.len() {
            true => Ok(bytes.slice(..length)),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }
}

/// Reads a blob from a given offset on.
pub(super) struct Stream {
    blob: Arc<dyn Blob>,
    position: u64,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.blob.len().saturating_sub(self.position);
        let count = left.min(buffer.len() as u64) as usize;
        self.blob.read_at(self.position, &mut buffer[..count])?;
        self.position += count as u64;
        Ok(count)
    }
}
