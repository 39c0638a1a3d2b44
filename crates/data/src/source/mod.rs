//! Where encoded images come from: one reader a kind of collection, all behind [`Source`].
//!
//! A source lists its images once, when it is opened, and from then on answers random reads from
//! any number of threads. It does not decode.

mod braces;
mod find;
mod folder;
mod labels;
mod list;
mod mix;
mod names;
mod notices;
#[cfg(feature = "parquet")]
mod parquet;
mod shards;

use std::path::Path;

use decode::MAX_IMAGE_BYTES;
use image::GrayImage;
use sha2::{Digest, Sha256};

pub use folder::Folder;
pub use list::List;
pub use mix::Mix;
pub use notices::{Named, Notices};
#[cfg(feature = "parquet")]
pub use parquet::Parquet;
pub use shards::{PackOptions, PackReport, Shards, pack, write_index};

use self::find::{PARQUET, SHARDS};
use crate::config::{DataConfig, MixEntry, SourceKind};
use crate::error::{Error, Result};
use crate::pixels::Image;
use crate::storage::plain_file;
use crate::synthetic::Synthetic;

/// File extensions that count as images, compared without regard to case: those that the formats
/// which can be read go by, the usual one of each first.
pub const IMAGE_EXTENSIONS: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", // JPEG
    "png", "apng", "webp", "bmp", "dib", "tif", "tiff",
];

/// One image as its source has it.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels that need no decoding.
    Pixels(Image),
}

/// Some of a source's images, one after the other, and how many of an epoch come from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// Number of images.
    pub len: usize,
    /// Images of an epoch that come from here; more than there are come again within the epoch.
    pub per_epoch: usize,
}

/// A fixed, ordered collection of images with random access.
pub trait Source: Send + Sync {
    /// What kind of source this is, for messages: "folder", "list", "shards", "parquet",
    /// "synthetic", "mix".
    fn kind(&self) -> &'static str;

    /// Number of images.
    fn len(&self) -> usize;

    /// Whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The name of image `index` for people: a relative path, or shard and member. Empty beyond
    /// the end.
    fn name(&self, index: usize) -> String;

    /// The class of image `index`, where it has one.
    fn label(&self, index: usize) -> Option<u32>;

    /// Names of the classes by label; empty where they have none.
    fn class_names(&self) -> &[String];

    /// Reads image `index`.
    ///
    /// # Errors
    /// The image cannot be read, or there is none of that index.
    fn load(&self, index: usize) -> Result<Payload>;

    /// A short hex digest that changes when names, labels or sizes of the images change.
    fn fingerprint(&self) -> String;

    /// The mask of the object in image `index` (0 or 255), for sources that know it.
    fn mask(&self, _index: usize) -> Option<GrayImage> {
        None
    }

    /// What was met besides the images when the source was opened.
    fn notices(&self) -> Notices {
        Notices::default()
    }

    /// How an epoch is put together; together the parts hold all images.
    fn parts(&self) -> Vec<Part> {
        vec![Part { len: self.len(), per_epoch: self.len() }]
    }
}

/// Opens the source that `config` names.
///
/// # Errors
/// The path does not exist, holds no images, or cannot be read; the message says which.
pub fn open(config: &DataConfig) -> Result<Box<dyn Source>> {
    if !config.mix.is_empty() {
        let open_entry = |entry: &MixEntry| {
            let (path, source) = (entry.path.clone(), entry.source);
            let one = DataConfig { path, source, mix: Vec::new(), ..config.clone() };
            let prefix = if source == SourceKind::Synthetic { "synthetic" } else { &entry.path };
            Ok((prefix.to_owned(), open(&one)?, entry.weight))
        };
        let sources = config.mix.iter().map(open_entry).collect::<Result<_>>()?;
        return Ok(Box::new(Mix::new(sources)?));
    }
    let path = Path::new(&config.path);
    let kind = match config.source {
        SourceKind::Auto => detect(path)?,
        kind => kind,
    };
    Ok(match kind {
        SourceKind::Synthetic => Box::new(Synthetic::new(config.synthetic.clone())),
        SourceKind::List => Box::new(List::open(path)?),
        SourceKind::Shards => Box::new(Shards::open(config)?),
        SourceKind::Parquet => open_parquet(config)?,
        SourceKind::Folder | SourceKind::Auto => Box::new(Folder::open(path)?),
    })
}

#[cfg(feature = "parquet")]
fn open_parquet(config: &DataConfig) -> Result<Box<dyn Source>> {
    Ok(Box::new(Parquet::open(config)?))
}

#[cfg(not(feature = "parquet"))]
fn open_parquet(config: &DataConfig) -> Result<Box<dyn Source>> {
    let problem = "parquet files need a build with `--features parquet`".into();
    Err(Error::Path { path: (&config.path).into(), problem })
}

/// The reader for `path`: see [`SourceKind::Auto`].
fn detect(path: &Path) -> Result<SourceKind> {
    let problem = |text: &str| Error::Path { path: path.into(), problem: text.into() };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if find::is_address(&path.to_string_lossy()) && !PARQUET.is(path) {
        return Ok(SourceKind::Shards);
    }
    if path.is_dir() {
        let kinds = [(SHARDS, SourceKind::Shards), (PARQUET, SourceKind::Parquet)];
        for (files, kind) in kinds {
            if files.any_in(path)? {
                return Ok(kind);
            }
        }
        return Ok(SourceKind::Folder);
    }
    if PARQUET.is(path) {
        return Ok(SourceKind::Parquet);
    }
    if name.contains(['*', '{']) || SHARDS.is(path) {
        return Ok(SourceKind::Shards);
    }
    if path.as_os_str().is_empty() {
        return Err(Error::Config {
            key: "data.path",
            problem: "required: a folder, a list file, tar shards or parquet files".into(),
        });
    }
    if !path.exists() {
        return Err(missing(path));
    }
    match extension(path).as_str() {
        "txt" | "csv" | "tsv" | "jsonl" => Ok(SourceKind::List),
        _ if is_image(path) => Err(problem("a single image; give the folder that holds it")),
        _ => Err(problem(
            "not a folder, a list (.txt, .csv, .tsv, .jsonl), a shard (.tar, .tar.gz, .tgz) or a .parquet file",
        )),
    }
}

/// The path does not exist.
fn missing(path: &Path) -> Error {
    Error::Path { path: path.into(), problem: "no such file or folder: check data.path".into() }
}

/// Lower-case extension; empty without one.
fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Whether the name is that of an image file.
pub fn is_image(path: &Path) -> bool {
    IMAGE_EXTENSIONS.contains(&extension(path).as_str())
}

/// The fingerprint of (name, label, size in bytes) triples, in order: 16 hex digits.
fn digest(images: impl Iterator<Item = (String, Option<u32>, u64)>) -> String {
    let mut hash = Sha256::new();
    for (name, label, size) in images {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(label.map_or(u64::MAX, u64::from).to_le_bytes());
        hash.update(size.to_le_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// The whole of an image file.
fn read_file(path: &Path) -> Result<Payload> {
    let bytes = plain_file(path, "read")?;
    if bytes > MAX_IMAGE_BYTES {
        let most = MAX_IMAGE_BYTES >> 20;
        let problem = format!("a file of {} MiB; at most {most} are read", bytes >> 20);
        return Err(Error::Path { path: path.into(), problem });
    }
    std::fs::read(path).map(Payload::Encoded).map_err(|source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// Bytes in a file; 0 where it cannot be asked.
fn file_size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
