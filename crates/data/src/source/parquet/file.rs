//! Reads one parquet file: labels and paths when it is opened, and images by random access.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use parquet::basic::Type;
use parquet::column::reader::{
    ColumnReader, ColumnReaderImpl, get_column_reader, get_typed_column_reader,
};
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type,
};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, PageIndexPolicy, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::serialized_reader::SerializedPageReader;

use super::super::labels::of_number;
use super::super::notices::{Named, Notices};
use super::chunk::{Shared, WholeChunk, pages};
use super::columns::{Columns, class_names};
use super::pages::{Page, PageCache};
use crate::error::{Error, Result};
use crate::storage::{Blob, failure_in};

/// Number of rows of labels that are read at a time.
const ROWS: usize = 4096;

/// A parquet file with a column of images.
pub(super) struct ImageFile {
    path: PathBuf,
    bytes: u64,
    blob: Shared,
    metadata: FileMetaData,
    columns: Columns,
    groups: Vec<Group>,
    /// First row of each row group, followed by the total number of rows.
    starts: Vec<usize>,
}

/// The relevant columns of one row group.
struct Group {
    image: ColumnChunkMetaData,
    label: Option<ColumnChunkMetaData>,
    path: Option<ColumnChunkMetaData>,
    /// The pages of `image` as stated by the page index of the file.
    told: Option<Vec<PageLocation>>,
    /// The validated pages of `image`, located when the first one is read.
    pages: OnceLock<Vec<PageLocation>>,
}

/// What is read of all rows when a file is opened. A list is empty if there is no such column.
#[derive(Default)]
pub(super) struct Rows {
    pub(super) labels: Vec<Option<String>>,
    pub(super) paths: Vec<Option<String>>,
    /// Labels that cannot be read.
    pub(super) notices: Notices,
}

impl ImageFile {
    pub(super) fn open(blob: Box<dyn Blob>) -> Result<Self> {
        let (path, bytes) = (blob.path().to_path_buf(), blob.len());
        let failed = |problem: String| Error::Parquet { path: path.clone(), problem };
        let blob = Shared(blob.into());
        let metadata = guarded(|| {
            ParquetMetaDataReader::new()
                .with_offset_index_policy(PageIndexPolicy::Optional)
                .parse_and_finish(&blob)
        });
        let broken = |why| {
            failed(format!("truncated or not a parquet file ({why}): copy or download it again"))
        };
        let metadata = metadata.map_err(|why| why.or_else(broken))?;
        let columns = Columns::find(metadata.file_metadata().schema_descr()).map_err(|names| {
            failed(format!("cannot tell which column holds the images; its columns are {names}"))
        })?;
        let mut starts = vec![0_u64];
        for group in metadata.row_groups() {
            let rows = u64::try_from(group.num_rows()).unwrap_or(0);
            starts.push(starts.last().copied().unwrap_or(0).saturating_add(rows));
        }
        // An image takes more than a byte, so a larger count is damaged. It must not lead to an
        // allocation.
        if let Some(rows) = starts.last().filter(|rows| **rows > bytes) {
            return Err(failed(format!(
                "claims to hold {rows} rows in {bytes} bytes: the file is damaged"
            )));
        }
        let starts = starts.into_iter().map(|start| start as usize).collect();
        let group = |(number, group): (usize, &RowGroupMetaData)| {
            let index = metadata.page_index_for_row_group(number);
            Group {
                image: group.column(columns.image).clone(),
                label: columns.label.map(|column| group.column(column).clone()),
                path: columns.path.map(|column| group.column(column).clone()),
                told: index.offset_index(columns.image).map(|i| i.page_locations().clone()),
                pages: OnceLock::new(),
            }
        };
        let groups = metadata.row_groups().iter().enumerate().map(group).collect();
        let metadata = metadata.file_metadata().clone();
        Ok(Self { path, bytes, blob, metadata, columns, groups, starts })
    }

    /// Returns the number of rows.
    pub(super) fn len(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// Returns the size of the file in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the file name.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns the names of the classes, if the file states them.
    pub(super) fn class_names(&self) -> Option<Vec<String>> {
        let label = self.metadata.schema_descr().column(self.columns.label?);
        class_names(&self.metadata, label.name())
    }

    fn failed(&self, problem: String) -> Error {
        Error::Parquet { path: self.path.clone(), problem }
    }

    /// Reads the labels and paths of all rows. An unreadable column affects no image: if its labels
    /// cannot be read, a row has none, and if its path cannot be read, a row is named by its
    /// number.
    ///
    /// # Errors
    /// Returns an error if the storage failed.
    pub(super) fn rows(&self) -> Result<Rows> {
        let mut rows = Rows::default();
        if let Some(label) = self.columns.label {
            let column = self.column(|group| group.label.as_ref())?;
            rows.notices.unread_labels = column.unread;
            if let Some((why, count)) = column.problem {
                let name = self.metadata.schema_descr().column(label).path().string();
                rows.notices.unread_labels.push_many(format!("column {name}"), why, count);
            }
            rows.labels = column.texts;
        }
        rows.paths = self.column(|group| group.path.as_ref())?.texts;
        Ok(rows)
    }

    /// Reads a column of numbers or strings as strings; the result is empty if there is no such
    /// column.
    fn column(&self, of: fn(&Group) -> Option<&ColumnChunkMetaData>) -> Result<Column> {
        let mut column = Column::default();
        for (number, group) in self.groups.iter().enumerate() {
            let Some(chunk) = of(group) else { return Ok(Column::default()) };
            let before = column.texts.len();
            match guarded(|| self.chunk(number, chunk, &mut column)) {
                Ok(()) => {}
                Err(Why::Storage(error)) => return Err(error),
                Err(Why::Reader(why)) => {
                    column.texts.truncate(before);
                    column.problem.get_or_insert((why, 0)).1 += self.rows_of(number) as u64;
                }
            }
            column.texts.resize(before + self.rows_of(number), None);
        }
        Ok(column)
    }

    /// Adds the values of a column chunk to `column`.
    fn chunk(
        &self,
        group: usize,
        chunk: &ColumnChunkMetaData,
        column: &mut Column,
    ) -> ParquetResult<()> {
        let part = Arc::new(WholeChunk::read(&self.blob, chunk)?);
        let pages = SerializedPageReader::new(part, chunk, self.rows_of(group), None)?;
        let reader = get_column_reader(chunk.column_descr_ptr(), Box::new(pages));
        let level = chunk.column_descr().max_def_level();
        let real =
            |value: f64| of_number(Some(value)).ok_or_else(|| format!("not an integer: {value}"));
        match chunk.column_type() {
            Type::BOOLEAN => column.all::<BoolType>(reader, level, |&v| whole(u8::from(v))),
            Type::INT32 => column.all::<Int32Type>(reader, level, |&v| whole(v)),
            Type::INT64 => column.all::<Int64Type>(reader, level, |&v| whole(v)),
            Type::FLOAT => column.all::<FloatType>(reader, level, |&v| real(v.into())),
            Type::DOUBLE => column.all::<DoubleType>(reader, level, |&v| real(v)),
            Type::BYTE_ARRAY => column.all::<ByteArrayType>(reader, level, |v| {
                let text = std::str::from_utf8(v.data());
                text.map(|text| Some(text.to_owned())).map_err(|_| "not valid UTF-8".into())
            }),
            other => Err(ParquetError::General(format!("values of the unsupported type {other}"))),
        }
    }

    /// Returns the number of rows of a row group.
    fn rows_of(&self, group: usize) -> usize {
        self.starts[group + 1] - self.starts[group]
    }

    /// Returns the bytes of the image in `row`. `number` identifies this file in the cache.
    pub(super) fn image(&self, row: usize, number: usize, cache: &PageCache) -> Result<Vec<u8>> {
        let group = self.starts.partition_point(|&start| start <= row).saturating_sub(1);
        let in_group = row - self.starts[group];
        let failed =
            |why: Why| why.or_else(|why| self.failed(format!("cannot read row {row} ({why})")));
        let pages = guarded(|| self.pages(group)).map_err(failed)?;
        let page = pages.partition_point(|page| page.first_row_index as usize <= in_group) - 1;
        let read = || guarded(|| self.page(group, pages, page)).map_err(failed);
        let in_page = in_group - pages[page].first_row_index as usize;
        let image = cache.get((number, group, page), read)?.image(in_page);
        image.ok_or_else(|| self.failed(format!("row {row} contains no image")))
    }

    /// Returns the pages of a row group's images. The first page begins with row 0.
    fn pages(&self, group: usize) -> ParquetResult<&[PageLocation]> {
        let rows = self.rows_of(group);
        let group = &self.groups[group];
        if let Some(pages) = group.pages.get() {
            return Ok(pages);
        }
        let found = pages(&self.blob, &group.image, rows, group.told.as_deref())?;
        Ok(group.pages.get_or_init(|| found))
    }

    /// Reads all images of a page.
    fn page(&self, group: usize, pages: &[PageLocation], page: usize) -> ParquetResult<Page> {
        let (chunk, rows) = (&self.groups[group].image, self.rows_of(group));
        let first = pages[page].first_row_index as usize;
        let end = pages.get(page + 1).map_or(rows, |next| next.first_row_index as usize);
        let blob = Arc::new(self.blob.clone());
        let reader = SerializedPageReader::new(blob, chunk, rows, Some(pages.to_vec()))?;
        let descriptor = chunk.column_descr_ptr();
        let mut reader = ColumnReaderImpl::<ByteArrayType>::new(descriptor, Box::new(reader));
        reader.skip_records(first)?;
        let (mut values, mut levels): (Vec<ByteArray>, Vec<i16>) = (Vec::new(), Vec::new());
        let (count, ..) = reader.read_records(end - first, Some(&mut levels), None, &mut values)?;
        let max_level = chunk.column_descr().max_def_level();
        let mut values = values.into_iter();
        // A required column has no definition levels.
        let is_there = |row: usize| levels.get(row).is_none_or(|&level| level == max_level);
        let images = (0..count).map(|row| if is_there(row) { values.next() } else { None });
        Ok(Page::new(images.collect()))
    }
}

/// The values of a column as strings.
#[derive(Default)]
struct Column {
    texts: Vec<Option<String>>,
    /// Rows whose value cannot be read.
    unread: Named,
    /// Why the rows of some row groups have no values at all, and how many rows these are.
    problem: Option<(String, u64)>,
}

impl Column {
    /// Adds all values of a column chunk, including absent ones.
    fn all<T: DataType>(
        &mut self,
        reader: ColumnReader,
        max_level: i16,
        text: impl Fn(&T::T) -> std::result::Result<Option<String>, String>,
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
                // A required column has no definition levels.
                let is_there = levels.get(row).is_none_or(|&level| level == max_level);
                let value = if is_there { present.next() } else { None };
                match value.map_or(Ok(None), &text) {
                    Ok(text) => self.texts.push(text),
                    Err(why) => {
                        self.unread.push(format!("row {}", self.texts.len()), why);
                        self.texts.push(None);
                    }
                }
            }
        }
    }
}

/// Converts an integer to text.
fn whole(value: impl ToString) -> std::result::Result<Option<String>, String> {
    Ok(Some(value.to_string()))
}

/// Why a read failed.
enum Why {
    /// The error of the storage, which is more precise than that of the parquet reader.
    Storage(Error),
    /// The message of the reader, in one line.
    Reader(String),
}

impl Why {
    /// Returns the error of the storage, or one made from the message of the reader.
    fn or_else(self, error: impl FnOnce(String) -> Error) -> Error {
        match self {
            Self::Storage(error) => error,
            Self::Reader(text) => error(text),
        }
    }
}

/// Runs a reader that may panic on damaged files.
fn guarded<T>(read: impl FnOnce() -> ParquetResult<T>) -> std::result::Result<T, Why> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(result) => result.map_err(|error| match failure_in(&error) {
            Some(failure) => Why::Storage(failure.into()),
            None => Why::Reader(plain(&error.to_string())),
        }),
        Err(_) => Err(Why::Reader("its content is damaged".into())),
    }
}

/// Rewrites the message of the reader for users, in one line.
fn plain(said: &str) -> String {
    match said.split_once("Disabled feature at compile time: ") {
        Some((_, codec)) => {
            let codec = if codec == "flate2" { "gzip" } else { codec };
            format!(
                "compressed with {codec}, which is not supported: rewrite it with snappy or zstd"
            )
        }
        None => said.replace('\n', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn what_the_reader_says_is_made_plain() {
        let gzip = plain("Parquet error: Disabled feature at compile time: flate2");
        assert!(gzip.contains("gzip") && gzip.contains("snappy or zstd"), "{gzip}");
        assert_eq!(plain("EOF:\nno page"), "EOF: no page");
    }
}
