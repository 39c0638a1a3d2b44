//! One parquet file: labels and paths at once, images at random.

use std::io::{self, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::Result as ParquetResult;
use parquet::file::reader::{ChunkReader, FileReader, Length, SerializedFileReader};

use super::columns::{Columns, class_names};
use crate::error::{Error, Result};
use crate::storage::Blob;

/// Rows of labels that are read at a time.
const ROWS: usize = 4096;

/// A parquet file with a column of images.
pub(super) struct ImageFile {
    path: PathBuf,
    bytes: u64,
    reader: SerializedFileReader<Shared>,
    columns: Columns,
    /// First row of each row group, and the number of rows.
    starts: Vec<usize>,
}

/// What is read of all rows when a file is opened; empty without such a column.
pub(super) struct Rows {
    pub(super) labels: Vec<Option<String>>,
    pub(super) paths: Vec<Option<String>>,
}

impl ImageFile {
    pub(super) fn open(blob: Box<dyn Blob>) -> Result<Self> {
        let (path, bytes) = (blob.path().to_path_buf(), blob.len());
        let failed = |problem: String| Error::Parquet { path: path.clone(), problem };
        let reader = guarded(|| SerializedFileReader::new(Shared(blob.into()))).map_err(|why| {
            failed(format!("truncated or not a parquet file ({why}): copy or download it again"))
        })?;
        let metadata = reader.metadata();
        let columns = Columns::find(metadata.file_metadata().schema_descr()).map_err(|names| {
            failed(format!("no column can be told to hold images; its columns are {names}"))
        })?;
        let mut starts = vec![0_u64];
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            starts.push(starts.last().copied().unwrap_or(0).saturating_add(rows));
        }
        // An image takes more than a byte; a damaged count must not take memory.
        if let Some(rows) = starts.last().filter(|rows| **rows > bytes) {
            return Err(failed(format!("announces {rows} rows in {bytes} bytes: it is damaged")));
        }
        let starts = starts.into_iter().map(|start| start as usize).collect();
        Ok(Self { path, bytes, reader, columns, starts })
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// File name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Names of the classes, where the file tells them.
    pub(super) fn class_names(&self) -> Option<Vec<String>> {
        let metadata = self.reader.metadata().file_metadata();
        let label = metadata.schema_descr().column(self.columns.label?);
        class_names(metadata, label.name())
    }

    fn failed(&self, problem: String) -> Error {
        Error::Parquet { path: self.path.clone(), problem }
    }

    /// Labels and paths of all rows.
    pub(super) fn rows(&self) -> Result<Rows> {
        let column = |column: Option<usize>| match column {
            Some(column) => guarded(|| self.texts(column))
                .map_err(|why| self.failed(format!("cannot read its labels ({why})"))),
            None => Ok(Vec::new()),
        };
        Ok(Rows { labels: column(self.columns.label)?, paths: column(self.columns.path)? })
    }

    /// A column of numbers or texts, as texts; of another type, nothing.
    fn texts(&self, column: usize) -> ParquetResult<Vec<Option<String>>> {
        let mut texts = Vec::new();
        let descriptor = self.reader.metadata().file_metadata().schema_descr().column(column);
        for group in 0..self.starts.len() - 1 {
            let reader = self.reader.get_row_group(group)?.get_column_reader(column)?;
            let level = descriptor.max_def_level();
            match descriptor.physical_type() {
                Type::INT32 => all::<Int32Type>(reader, level, &mut texts, |v| v.to_string())?,
                Type::INT64 => all::<Int64Type>(reader, level, &mut texts, |v| v.to_string())?,
                Type::BYTE_ARRAY => all::<ByteArrayType>(reader, level, &mut texts, |v| {
                    String::from_utf8_lossy(v.data()).into_owned()
                })?,
                _ => return Ok(Vec::new()),
            }
        }
        Ok(texts)
    }

    /// The bytes of the image in `row`.
    pub(super) fn image(&self, row: usize) -> Result<Vec<u8>> {
        let group = self.starts.partition_point(|&start| start <= row).saturating_sub(1);
        let found = guarded(|| self.value(group, row - self.starts[group]))
            .map_err(|why| self.failed(format!("cannot read row {row} ({why})")))?;
        found.ok_or_else(|| self.failed(format!("row {row} holds no image")))
    }

    fn value(&self, group: usize, row: usize) -> ParquetResult<Option<Vec<u8>>> {
        let reader = self.reader.get_row_group(group)?.get_column_reader(self.columns.image)?;
        let mut reader: ColumnReaderImpl<ByteArrayType> = get_typed_column_reader(reader);
        reader.skip_records(row)?;
        let (mut values, mut levels): (Vec<ByteArray>, Vec<i16>) = (Vec::new(), Vec::new());
        reader.read_records(1, Some(&mut levels), None, &mut values)?;
        Ok(values.first().map(|value| value.data().to_vec()))
    }
}

/// All values of a column chunk, absent ones included, added to `texts`.
fn all<T: DataType>(
    reader: ColumnReader,
    max_level: i16,
    texts: &mut Vec<Option<String>>,
    text: impl Fn(&T::T) -> String,
) -> ParquetResult<()> {
    let mut reader = get_typed_column_reader::<T>(reader);
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    loop {
        values.clear();
        levels.clear();
        let (rows, _, _) = reader.read_records(ROWS, Some(&mut levels), None, &mut values)?;
        if rows == 0 {
            return Ok(());
        }
        let mut present = values.iter();
        for row in 0..rows {
            // A required column has no levels.
            let is_there = levels.get(row).is_none_or(|&level| level == max_level);
            texts.push(if is_there { present.next().map(&text) } else { None });
        }
    }
}

/// Runs a reader that damaged files may make panic; what it said in one line.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> std::result::Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| error.to_string().replace('\n', " ")),
        Err(_) => Err("its content is damaged".into()),
    }
}

/// A blob as the parquet reader wants it.
struct Shared(Arc<dyn Blob>);

impl Length for Shared {
    fn len(&self) -> u64 {
        self.0.len()
    }
}

impl ChunkReader for Shared {
    type T = BufReader<Stream>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let stream = Stream { blob: self.0.clone(), position: start };
        Ok(BufReader::with_capacity(self.0.block(), stream))
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        // The size is the file's own word: compared before memory is taken for it.
        if start.checked_add(length as u64).is_none_or(|end| end > self.0.len()) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let mut bytes = vec![0; length];
        self.0.read_at(start, &mut bytes)?;
        Ok(bytes.into())
    }
}

struct Stream {
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
