//! Tests which parts of a parquet file are read, and when.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parquet::basic::Compression;
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::chunk::{Shared, pages};
use super::file::ImageFile;
use super::pages::PageCache;
use crate::storage::Blob;

const ROWS: usize = 30;
const IMAGE_BYTES: usize = 5000;

/// A blob that counts how many of its bytes are read.
#[derive(Debug)]
struct Counting(Vec<u8>, Arc<AtomicUsize>);

impl Blob for Counting {
    fn path(&self) -> &Path {
        Path::new("x.parquet")
    }

    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.1.fetch_add(buffer.len(), Ordering::Relaxed);
        buffer.copy_from_slice(&self.0[offset as usize..][..buffer.len()]);
        Ok(())
    }

    fn sibling(&self, _suffix: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

/// Returns an incompressible image. Every 7th is null, every 5th is equal to the first, and all
/// others differ.
fn image(number: usize) -> Option<Vec<u8>> {
    use rand_core::{Rng, SeedableRng};
    let seed = if number.is_multiple_of(5) { 0 } else { number as u64 };
    let mut bytes = vec![0; IMAGE_BYTES];
    rand_chacha::ChaCha8Rng::seed_from_u64(seed).fill_bytes(&mut bytes);
    (!number.is_multiple_of(7)).then_some(bytes)
}

/// Writes two row groups of `ROWS` rows, with about three images per page.
fn bytes(version: WriterVersion, page_index: bool) -> Vec<u8> {
    let schema = "message m { OPTIONAL BYTE_ARRAY image; REQUIRED INT64 label; }";
    let properties = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(Compression::SNAPPY)
        .set_data_page_size_limit(3 * IMAGE_BYTES - 1)
        .set_dictionary_page_size_limit(3 * IMAGE_BYTES)
        .set_write_batch_size(1)
        .set_offset_index_disabled(!page_index)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties.into()).unwrap();
    for group in 0..2 {
        let rows = group * ROWS..(group + 1) * ROWS;
        let images: Vec<Option<Vec<u8>>> = rows.clone().map(image).collect();
        let levels: Vec<i16> = images.iter().map(|image| i16::from(image.is_some())).collect();
        let images: Vec<ByteArray> = images.into_iter().flatten().map(ByteArray::from).collect();
        let labels: Vec<i64> = rows.map(|row| row as i64).collect();
        let mut to = writer.next_row_group().unwrap();
        let mut column = to.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&images, Some(&levels), None).unwrap();
        column.close().unwrap();
        let mut column = to.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
        column.close().unwrap();
        to.close().unwrap();
    }
    writer.into_inner().unwrap()
}

const LAYOUTS: [(WriterVersion, bool); 4] = [
    (WriterVersion::PARQUET_1_0, false),
    (WriterVersion::PARQUET_1_0, true),
    (WriterVersion::PARQUET_2_0, false),
    (WriterVersion::PARQUET_2_0, true),
];

#[test]
fn opening_reads_no_images_and_an_image_reads_its_page() {
    for layout in LAYOUTS {
        let read = Arc::new(AtomicUsize::new(0));
        let blob = Counting(bytes(layout.0, layout.1), read.clone());
        let whole = blob.0.len();
        assert!(whole > 40 * IMAGE_BYTES, "{whole}");
        let file = ImageFile::open(Box::new(blob)).unwrap();
        let labels = file.rows().unwrap().labels;
        let expected: Vec<_> = (0..2 * ROWS).map(|row| Some(row.to_string())).collect();
        assert_eq!(labels, expected);
        let opening = read.swap(0, Ordering::Relaxed);
        assert!(opening < whole / 20, "{layout:?}: {opening} of {whole}");
        // Without a page index, reading the first image of a row group locates its pages.
        let cache = PageCache::new(0.0);
        let load = |row| file.image(row, 0, &cache).ok();
        load(1);
        read.store(0, Ordering::Relaxed);
        for row in [20, 2, 29, 21] {
            assert_eq!(load(row), image(row), "{layout:?} {row}");
            let bytes = read.swap(0, Ordering::Relaxed);
            assert!(bytes < 8 * IMAGE_BYTES, "{layout:?} {row}: {bytes}"); // with the dictionary
        }
        // Cached pages have the same contents and are not read again.
        let cache = PageCache::new(1.0);
        let all = || (0..2 * ROWS).map(|row| file.image(row, 0, &cache).ok());
        assert!(all().eq((0..2 * ROWS).map(image)), "{layout:?}");
        read.store(0, Ordering::Relaxed);
        assert!(all().eq((0..2 * ROWS).map(image)), "{layout:?}");
        assert_eq!(read.load(Ordering::Relaxed), 0, "{layout:?}");
    }
}

#[test]
fn pages_are_found_as_the_index_tells_them() {
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let blob = Shared(Arc::new(Counting(bytes(version, true), Arc::default())));
        let reader =
            ParquetMetaDataReader::new().with_offset_index_policy(PageIndexPolicy::Required);
        let metadata = reader.parse_and_finish(&blob).unwrap();
        for group in 0..2 {
            let chunk = metadata.row_group(group).column(0);
            let index = metadata.page_index_for_row_group(group);
            let told = index.offset_index(0).unwrap().page_locations();
            assert!(told.len() > 5, "{}", told.len());
            assert_eq!(pages(&blob, chunk, ROWS, None).unwrap(), *told);
            // An impossible page index is ignored.
            let mut wrong = told.clone();
            wrong[1].offset = -5;
            assert_eq!(pages(&blob, chunk, ROWS, Some(&wrong)).unwrap(), *told);
            for place in 0..told.len() {
                let mut wrong = told.clone();
                wrong[place].first_row_index = ROWS as i64;
                assert_eq!(pages(&blob, chunk, ROWS, Some(&wrong)).unwrap(), *told);
                wrong = told.clone();
                wrong[place].compressed_page_size = i32::MAX;
                assert_eq!(pages(&blob, chunk, ROWS, Some(&wrong)).unwrap(), *told);
            }
            assert!(pages(&blob, chunk, ROWS + 1, None).is_err());
        }
    }
}
