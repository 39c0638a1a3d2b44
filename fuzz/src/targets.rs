//! The targets.

use std::fs;
use std::path::Path;

use data::{DataConfig, Dataset, SourceKind};
use decode::PixelFormat;
use model::weights::{TensorFile, infer, networks};
use tempfile::TempDir;

pub use crate::differential::jpeg;
use crate::seeds;

/// Images of a dataset that are looked at.
const LOOKED_AT: usize = 4;

thread_local! {
    /// Where a target writes what is only read from files.
    static FOLDER: TempDir = tempfile::tempdir().unwrap();
}

/// A decoder's own panic is caught and reported as a broken image; it must not happen all the same.
fn decoded<T>(result: Result<T, decode::Error>) -> Option<T> {
    match result {
        Err(error @ decode::Error::DecoderPanic { .. }) => panic!("{error}"),
        other => other.ok(),
    }
}

/// An image file as RGB.
pub fn image(bytes: &[u8]) -> bool {
    decoded(decode::decode(bytes)).is_some()
}

/// An image file with as many channels as its first byte says, and a range of values.
pub fn channels(bytes: &[u8]) -> bool {
    let Some((&channels, bytes)) = bytes.split_first() else { return false };
    let channels = usize::from(channels % 16 + 1);
    let pixels = PixelFormat { channels, value_range: vec![[0.0, 3000.0]] };
    let Some(decoded) = decoded(decode::decode_as(bytes, &pixels)) else { return false };
    assert_eq!(decoded.image.channels(), channels);
    true
}

/// A list file of each kind.
pub fn list(bytes: &[u8]) -> bool {
    FOLDER.with(|folder| {
        fs::write(folder.path().join("a.jpg"), b"x").unwrap();
        let opened = ["l.txt", "l.csv", "l.jsonl"].map(|name| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            opens(&path, SourceKind::List)
        });
        opened.contains(&true)
    })
}

/// A tar or tar.gz shard without an index.
pub fn shard(bytes: &[u8]) -> bool {
    FOLDER.with(|folder| {
        let path = folder.path().join("s.tar");
        fs::write(&path, bytes).unwrap();
        opens(&path, SourceKind::Shards)
    })
}

/// The lines of an index beside a shard of two images, under a head that vouches for them, or
/// its checksum would end the matter.
pub fn index(bytes: &[u8]) -> bool {
    let shard = seeds::plain_shard();
    let images = bytes.iter().filter(|&&byte| byte == b'\n').count();
    let (length, crc) = (shard.len(), crc32fast::hash(bytes));
    let head = format!(
        "{{\"format\":\"simdino-tar-index\",\"version\":1,\"shard_bytes\":{length},\
         \"images\":{images},\"crc32\":{crc}}}\n"
    );
    FOLDER.with(|folder| {
        let [path, index] = ["i.tar", "i.tar.index"].map(|name| folder.path().join(name));
        fs::write(&path, &shard).unwrap();
        fs::write(&index, [head.as_bytes(), bytes].concat()).unwrap();
        opens(&path, SourceKind::Shards)
    })
}

/// A parquet file of images. The library panics on some, which our reader turns into errors; libFuzzer would
/// stop at each of these without looking whether they get out.
pub fn parquet(bytes: &[u8]) -> bool {
    #[cfg(fuzzing)]
    std::panic::set_hook(Box::new(|_| {}));
    FOLDER.with(|folder| {
        let path = folder.path().join("p.parquet");
        fs::write(&path, bytes).unwrap();
        opens(&path, SourceKind::Parquet)
    })
}

/// A file of `torch.save`, zipped or of the older form.
pub fn pth(bytes: &[u8]) -> bool {
    tensors(bytes)
}

/// A safetensors file.
pub fn safetensors(bytes: &[u8]) -> bool {
    tensors(bytes)
}

/// Whether a dataset opens; the first images are looked at, whatever becomes of them.
fn opens(path: &Path, source: SourceKind) -> bool {
    let config = DataConfig {
        path: Some(path.to_string_lossy().into_owned()),
        source,
        ..DataConfig::default()
    };
    let Ok(dataset) = data::open(&config) else { return false };
    (0..dataset.len().min(LOOKED_AT)).for_each(|index| look(&dataset, index));
    true
}

fn look(dataset: &Dataset, index: usize) {
    let _ = (dataset.name(index), dataset.label(index));
    if let Err(data::Error::Decode(error)) = dataset.image(index) {
        decoded::<()>(Err(error));
    }
}

/// Whether a file opens and each of its tensors can be read. Which networks are in it is asked, too.
fn tensors(bytes: &[u8]) -> bool {
    FOLDER.with(|folder| {
        let path = folder.path().join("weights");
        fs::write(&path, bytes).unwrap();
        let Ok(file) = TensorFile::open(&path) else { return false };
        networks(&file).iter().for_each(|network| drop(infer(&file, network)));
        let names: Vec<String> = file.tensors().map(|(name, _)| name.to_owned()).collect();
        names.iter().all(|name| file.read(name).is_ok())
    })
}
