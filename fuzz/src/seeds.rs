//! Whole files for the targets to start from: the fixtures of our crates, and some that are made here.

use std::collections::HashMap;
use std::fs;
use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::Arc;

use ::image::{ImageFormat, Rgb, RgbImage};
use ::parquet::basic::Compression;
use ::parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;
use ::safetensors::tensor::{Dtype, TensorView};
use decode::PixelFormat;

/// Files of a folder of `crates` with one of these ends, by name.
fn files(folder: &str, ends: &[&str]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates").join(folder);
    let mut paths: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.to_string_lossy();
            ends.iter().any(|end| name.ends_with(end)) && !name.ends_with(".expected.png")
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} has none of {ends:?}", folder.display());
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

pub(crate) fn image() -> Vec<Vec<u8>> {
    files("decode/tests/fixtures/images", &[".jpg", ".png", ".webp", ".tiff", ".bmp"])
}

/// TIFF files of many channels, behind their number of channels less one.
pub(crate) fn channels() -> Vec<Vec<u8>> {
    let files = files("decode/tests/fixtures/bands", &[".tif"]);
    let fits = |file: &Vec<u8>| {
        let opens = |less_one: &u8| {
            let channels = usize::from(*less_one) + 1;
            let pixels = PixelFormat { channels, value_range: vec![[0.0, 3000.0]] };
            decode::decode_as(file, &pixels).is_ok()
        };
        (0..16_u8).find(opens).map(|less_one| [&[less_one][..], file].concat())
    };
    files.iter().filter_map(fits).collect()
}

/// Sequential and progressive files of every sampling.
pub(crate) fn jpeg() -> Vec<Vec<u8>> {
    let folders = ["jpeg/tests/fixtures", "jpeg/tests/fixtures/kinds"];
    folders.into_iter().flat_map(|folder| files(folder, &[".jpg"])).collect()
}

pub(crate) fn list() -> Vec<Vec<u8>> {
    let texts = [
        "a.jpg\n\nb/c.png\nd e.webp\n",
        "path,label\na.jpg,cat\n\"b,c.png\",dog\n",
        "{\"path\": \"a.jpg\", \"label\": 3}\n{\"path\": \"b.png\", \"label\": \"x\"}\n",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}

/// A tar, plain and packed.
pub(crate) fn shard() -> Vec<Vec<u8>> {
    let plain = plain_shard();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(&plain).unwrap();
    vec![plain, packed.finish().unwrap()]
}

pub(crate) fn plain_shard() -> Vec<u8> {
    let mut plain = tar::Builder::new(Vec::new());
    for (name, text) in [
        ("0.jpg", &b"no picture"[..]),
        ("0.cls", b"3"),
        ("1.png", b""),
        ("1.json", br#"{"label": "cat"}"#),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_cksum();
        plain.append_data(&mut header, name, text).unwrap();
    }
    plain.into_inner().unwrap()
}

/// The lines of the index of that shard, without their head.
pub(crate) fn index() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s.tar");
    fs::write(&path, plain_shard()).unwrap();
    data::source::write_index(&path, |_| ()).unwrap();
    let index = fs::read_to_string(folder.path().join("s.tar.index")).unwrap();
    vec![index.split_once('\n').unwrap().1.as_bytes().to_vec()]
}

/// Files as the library `datasets` writes them, one for each way to pack a page.
pub(crate) fn parquet() -> Vec<Vec<u8>> {
    [Compression::UNCOMPRESSED, Compression::SNAPPY].map(written).to_vec()
}

fn written(compression: Compression) -> Vec<u8> {
    let schema = "message schema {
        OPTIONAL group image { OPTIONAL BYTE_ARRAY bytes; OPTIONAL BYTE_ARRAY path (UTF8); }
        OPTIONAL INT64 label;
    }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder().set_compression(compression).build();
    let images = [3, 4].map(picture).map(ByteArray::from);
    let names = ["a.png", "b.png"].map(ByteArray::from);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in [&images, &names] {
        let mut column = group.next_column().unwrap().unwrap();
        // The third row has no image.
        column.typed::<ByteArrayType>().write_batch(values, Some(&[2, 2, 0]), None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&[7, 0, -1], Some(&[1, 1, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// A small PNG.
fn picture(number: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    let picture = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8, y as u8, number]));
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

pub(crate) fn pth() -> Vec<Vec<u8>> {
    let names = [
        "kinds.pth",
        "kinds_protocol4.pth",
        "kinds_legacy.pth",
        "training.pth",
        "training_legacy.pth",
    ];
    files("model/tests/fixtures/pth", &names)
}

/// One with a text beside its tensors, and one with none.
pub(crate) fn safetensors() -> Vec<Vec<u8>> {
    let zeros = [0; 60];
    let tensors =
        [(Dtype::F32, "blocks.0.norm1.weight"), (Dtype::BF16, "pos_embed"), (Dtype::I64, "step")]
            .map(|(dtype, name)| {
                let shape = vec![1, 60 / dtype.bitsize() * 8];
                let bytes = &zeros[..shape[1] * dtype.bitsize() / 8];
                (name, TensorView::new(dtype, shape, bytes).unwrap())
            });
    let texts = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    [None, Some(texts)]
        .map(|texts| ::safetensors::serialize(tensors.clone(), texts).unwrap())
        .to_vec()
}
