//! Parquet files as the `datasets` library writes them, and others.

use std::path::Path;
use std::sync::Arc;

use data::{Dataset, SourceKind, open};
use parquet::basic::Compression;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;
use tempfile::tempdir;

use crate::support::{
    auto, config, labels, names, picture, png, refused, same, settings, start, take, write,
};

const HUGGING_FACE: &str = "message schema {
    OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
    OPTIONAL INT64 label;
}";

const DESCRIPTION: &str = r#"{"info": {"features": {"image": {"_type": "Image"},
    "label": {"names": ["tench", "goldfish", "shark"], "_type": "ClassLabel"}}}}"#;

/// The values of a column, with the maximum definition level; absent values are nulls at the
/// outermost level.
enum Column<'a> {
    Bytes(Vec<Option<&'a [u8]>>, i16),
    Numbers(Vec<Option<i64>>, i16),
    Floats(Vec<Option<f64>>, i16),
    Truths(Vec<Option<bool>>, i16),
}

/// Writes a parquet file with these row groups of columns.
fn write_parquet(path: &Path, schema: &str, told: Option<&str>, groups: &[Vec<Column<'_>>]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let pairs = told.map(|text| vec![KeyValue::new("huggingface".into(), text.to_owned())]);
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_data_page_size_limit(4096)
        .set_write_batch_size(2)
        .set_dictionary_page_size_limit(4096)
        .set_key_value_metadata(pairs)
        .build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    for columns in groups {
        let mut group = writer.next_row_group().unwrap();
        for column in columns {
            let mut to = group.next_column().unwrap().unwrap();
            match column {
                Column::Bytes(values, level) => {
                    let bytes = |value: &[u8]| ByteArray::from(value.to_vec());
                    let values: Vec<_> = values.iter().map(|value| value.map(bytes)).collect();
                    write_column::<ByteArrayType>(&mut to, &values, *level);
                }
                Column::Numbers(values, level) => {
                    write_column::<Int64Type>(&mut to, values, *level);
                }
                Column::Floats(values, level) => {
                    write_column::<DoubleType>(&mut to, values, *level);
                }
                Column::Truths(values, level) => write_column::<BoolType>(&mut to, values, *level),
            }
            to.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// Writes values with the definition level `level`; `None` is null.
fn write_column<T: DataType>(
    to: &mut SerializedColumnWriter<'_>,
    values: &[Option<T::T>],
    level: i16,
) {
    let present: Vec<T::T> = values.iter().flatten().cloned().collect();
    let levels: Vec<i16> =
        values.iter().map(|value| if value.is_some() { level } else { 0 }).collect();
    to.typed::<T>().write_batch(&present, Some(&levels), None).unwrap();
}

/// Writes 3 row groups of 20 rows, which contain `picture(first)` and the following ones; one of
/// them is null.
pub fn write_pictures(path: &Path, first: u32) {
    let images: Vec<Vec<u8>> = (first..first + 60).map(png).collect();
    let paths: Vec<String> = (first..first + 60).map(|n| format!("n{n}.png")).collect();
    let groups: Vec<Vec<Column<'_>>> = (0..3)
        .map(|group| {
            let rows = 20 * group..20 * (group + 1);
            let image = |row: usize| (row != 27).then_some(&images[row][..]);
            vec![
                Column::Bytes(rows.clone().map(image).collect(), 2),
                Column::Bytes(rows.clone().map(|row| Some(paths[row].as_bytes())).collect(), 2),
                Column::Numbers(rows.map(|row| Some(row as i64 % 4 - 1)).collect(), 1),
            ]
        })
        .collect();
    write_parquet(path, HUGGING_FACE, Some(DESCRIPTION), &groups);
}

#[test]
fn a_hugging_face_dataset_is_read_at_random() {
    let dir = tempdir().unwrap();
    write_pictures(&dir.path().join("train-00000.parquet"), 0);
    write_pictures(&dir.path().join("train-00001.parquet"), 100);
    let dataset = auto(dir.path());
    assert_eq!((dataset.len(), dataset.kind()), (120, "parquet"));
    assert_eq!(dataset.class_names(), ["tench", "goldfish", "shark"]);
    let all = labels(&dataset);
    assert_eq!(all[..5], [None, Some(0), Some(1), Some(2), None]);
    assert_eq!(names(&dataset)[61], "train-00001.parquet/1/n101.png");
    let broken = dataset.image(27).unwrap_err().chain();
    assert!(broken.contains("train-00000.parquet") && broken.contains("row 27"), "{broken}");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let dataset = &dataset;
            scope.spawn(move || {
                for step in 0..120 {
                    let index = (step * 37 + thread * 11) % 120;
                    let number = index as u32 % 60 + 100 * (index as u32 / 60);
                    match dataset.image(index) {
                        Ok(image) => assert_eq!(image, picture(number, 32, 24)),
                        Err(_) => assert_eq!(index % 60, 27),
                    }
                }
            });
        }
    });
    assert!(dataset.image(120).is_err());
    assert_eq!(auto(&dir.path().join("train-*.parquet")).fingerprint(), dataset.fingerprint());
    let one = auto(&dir.path().join("train-00001.parquet"));
    assert_eq!((one.len(), one.image(0).unwrap()), (60, picture(100, 32, 24).into()));
    assert_ne!(one.fingerprint(), dataset.fingerprint());
}

#[test]
fn it_trains_and_packs_like_any_source() {
    let dir = tempdir().unwrap();
    write_pictures(&dir.path().join("a.parquet"), 0);
    let dataset = Arc::new(auto(dir.path()));
    let batches = |workers| {
        let settings = data::loader::LoaderConfig { workers: Some(workers), ..settings(10) };
        take(&mut start(&dataset, settings, (0, 0)), 5)
    };
    assert!(batches(1).iter().zip(&batches(3)).all(|(a, b)| same(a, b)));
    let source = data::source::open(&config(SourceKind::Parquet, dir.path())).unwrap();
    let options = data::source::PackOptions { skip_unreadable: true, ..Default::default() };
    let out = dir.path().join("packed");
    let report = data::source::pack(source.as_ref(), &out, &options, |_| ()).unwrap();
    assert_eq!((report.images, report.skipped.len()), (59, 1));
    let packed = auto(&out);
    assert_eq!(packed.image(0).unwrap(), picture(0, 32, 24));
    assert_eq!(names(&packed)[1], "000000.tar/a.parquet/1/n1.png");
    assert_eq!(packed.num_classes(), 3);
}

fn plain(path: &Path, schema: &str, columns: Vec<Column<'_>>) {
    write_parquet(path, schema, None, &[columns]);
}

#[test]
fn other_layouts() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let (a, b) = (png(1), png(2));
    let images = || Column::Bytes(vec![Some(&a[..]), Some(&b[..])], 1);
    let texts = || Column::Bytes(vec![Some(&b"cat"[..]), None], 1);
    let whole = |dataset: &Dataset| {
        assert_eq!(dataset.image(0).unwrap(), picture(1, 32, 24));
        assert_eq!(dataset.image(1).unwrap(), picture(2, 32, 24));
    };
    // The images are a column of bytes, and the labels are text.
    plain(
        &path,
        "message m { OPTIONAL BYTE_ARRAY label (UTF8); OPTIONAL BYTE_ARRAY img; }",
        vec![texts(), images()],
    );
    let dataset = auto(&path);
    whole(&dataset);
    assert_eq!(dataset.class_names(), ["cat"]);
    assert_eq!(labels(&dataset), [Some(0), None]);
    assert_eq!(names(&dataset), ["x.parquet/0", "x.parquet/1"]);
    // The images are the only column of their kind, whatever its name; there are no labels.
    plain(
        &path,
        "message m { OPTIONAL BYTE_ARRAY text (UTF8); OPTIONAL BYTE_ARRAY scan; }",
        vec![texts(), images()],
    );
    let dataset = auto(&path);
    whole(&dataset);
    assert_eq!((labels(&dataset), dataset.num_classes()), (vec![None, None], 0));
}

#[test]
fn what_is_no_image_dataset_is_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    write(&path, "no parquet");
    refused(SourceKind::Auto, &path, &["x.parquet", "not a parquet file"]);
    write_pictures(&path, 0);
    let bytes = std::fs::read(&path).unwrap();
    for end in (0..bytes.len()).step_by(bytes.len() / 40) {
        write(&path, &bytes[..end]);
        refused(SourceKind::Auto, &path, &["x.parquet", "not a parquet file"]);
    }
    let image = png(1);
    let rows = || vec![Some(&image[..])];
    plain(
        &path,
        "message m { OPTIONAL BYTE_ARRAY text (UTF8); OPTIONAL INT64 n; }",
        vec![Column::Bytes(rows(), 1), Column::Numbers(vec![Some(1)], 1)],
    );
    refused(SourceKind::Auto, &path, &["x.parquet", "holds the images", "text, n"]);
    plain(
        &path,
        "message m { OPTIONAL BYTE_ARRAY a; OPTIONAL BYTE_ARRAY b; }",
        vec![Column::Bytes(rows(), 1), Column::Bytes(rows(), 1)],
    );
    refused(SourceKind::Auto, &path, &["holds the images", "a, b"]);
    write_parquet(&path, HUGGING_FACE, None, &[]);
    refused(SourceKind::Auto, &path, &["no rows"]);
    let nowhere = dir.path().join("y-*.parquet");
    refused(SourceKind::Auto, &nowhere, &["matches this pattern"]);
}

#[test]
fn labels_of_many_types_are_read_or_named() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let images: Vec<Vec<u8>> = (0..4).map(png).collect();
    let rows = || Column::Bytes(images.iter().map(|image| Some(&image[..])).collect(), 1);
    let open = |kind: &str, column: Column<'_>| {
        let schema = format!("message m {{ OPTIONAL BYTE_ARRAY image; OPTIONAL {kind} label; }}");
        plain(&path, &schema, vec![rows(), column]);
        let dataset = auto(&path);
        (0..4).for_each(|i| assert_eq!(dataset.image(i).unwrap(), picture(i as u32, 32, 24)));
        let named = dataset.notices().unread_labels;
        let names: Vec<String> = named.first.into_iter().map(|(name, _)| name).collect();
        (labels(&dataset), names, named.count)
    };
    // pandas writes integers with missing values as floats.
    let floats = Column::Floats(vec![Some(3.0), Some(f64::NAN), None, Some(0.0)], 1);
    assert_eq!(open("DOUBLE", floats), (vec![Some(3), None, None, Some(0)], vec![], 0));
    let floats = Column::Floats(vec![Some(3.0), Some(1.5), Some(-1.0), Some(2.0)], 1);
    let named = vec!["x.parquet/row 1".to_owned()];
    assert_eq!(open("DOUBLE", floats), (vec![Some(3), None, None, Some(2)], named.clone(), 1));
    let truths = Column::Truths(vec![Some(true), Some(false), None, Some(true)], 1);
    assert_eq!(open("BOOLEAN", truths), (vec![Some(1), Some(0), None, Some(1)], vec![], 0));
    let texts: [&[u8]; 4] = [b"cat", b"caf\xE9", b"dog", b"cat"];
    let texts = Column::Bytes(texts.map(Some).to_vec(), 1);
    assert_eq!(open("BYTE_ARRAY", texts), (vec![Some(0), None, Some(1), Some(0)], named, 1));
}

/// A damaged column of labels affects only labels and is reported; the images can still be read.
#[test]
fn a_damaged_column_of_labels_costs_no_image() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("x.parquet");
    let images: Vec<Vec<u8>> = (0..4).map(png).collect();
    let rows = Column::Bytes(images.iter().map(|image| Some(&image[..])).collect(), 1);
    let schema = "message m { OPTIONAL BYTE_ARRAY image; OPTIONAL INT64 label; }";
    let numbers = Column::Numbers((0..4).map(Some).collect(), 1);
    plain(&path, schema, vec![rows, numbers]);
    let bytes = std::fs::read(&path).unwrap();
    let file = SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
    let (start, length) = file.metadata().row_group(0).column(1).byte_range();
    let mut lost = 0;
    for at in start as usize..(start + length) as usize {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0xFF;
        write(&path, &damaged);
        let Ok(dataset) = open(&config(SourceKind::Auto, &path)) else { continue };
        assert_eq!(dataset.len(), 4, "byte {at}");
        let named = dataset.notices().unread_labels;
        if named.count > 0 {
            assert!(named.first[0].0 == "x.parquet/column label", "{named:?}");
            assert_eq!((named.count, dataset.num_classes()), (4, 0), "{named:?}");
            lost += 1;
        }
    }
    assert!(lost > 3, "{lost}");
}
