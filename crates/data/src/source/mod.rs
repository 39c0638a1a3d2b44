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
mod open;
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
pub use open::open;
#[cfg(feature = "parquet")]
pub use parquet::Parquet;
pub use shards::{PackOptions, PackReport, Shards, pack, write_index};

use crate::error::{Error, Result};
use crate::storage::plain_file;
use decode::Image;

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
pub struct SourcePart {
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
    fn parts(&self) -> Vec<SourcePart> {
        vec![SourcePart { len: self.len(), per_epoch: self.len() }]
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
