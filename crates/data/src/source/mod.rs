//! Sources of images: one reader per kind of collection, all behind the trait [`Source`].
//!
//! A source lists its images once, when it is opened, and then serves random reads from any number
//! of threads. It does not decode images.

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

/// File extensions of images, compared case-insensitively: those of all supported formats, with the
/// most common extension of each format first.
pub const IMAGE_EXTENSIONS: [&str; 15] = [
    "jpg", "jpeg", "jpe", "jfif", "jif", "jfi", "pjpeg", "pjp", // JPEG
    "png", "apng", "webp", "bmp", "dib", "tif", "tiff",
];

/// An image in the form in which its source provides it.
#[derive(Debug, Clone)]
pub enum Payload {
    /// The bytes of an image file.
    Encoded(Vec<u8>),
    /// Pixels that need no decoding.
    Pixels(Image),
}

/// A contiguous part of a source's images, and how many images of an epoch come from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourcePart {
    /// Number of images in the part.
    pub len: usize,
    /// Number of images per epoch; if it exceeds `len`, images repeat within the epoch.
    pub per_epoch: usize,
}

/// A fixed, ordered collection of images with random access.
pub trait Source: Send + Sync {
    /// Returns the kind of this source, for messages: "folder", "list", "shards", "parquet",
    /// "synthetic", or "mix".
    fn kind(&self) -> &'static str;

    /// Returns the number of images.
    fn len(&self) -> usize;

    /// Returns whether there are no images.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a printable name of image `index`: a relative path, or shard and member. Empty if
    /// the index is out of range.
    fn name(&self, index: usize) -> String;

    /// Returns the class of image `index`, if it has one.
    fn label(&self, index: usize) -> Option<u32>;

    /// Returns the names of the classes, indexed by label; empty if classes have no names.
    fn class_names(&self) -> &[String];

    /// Reads image `index`.
    ///
    /// # Errors
    /// Returns an error if the image cannot be read or the index is out of range.
    fn load(&self, index: usize) -> Result<Payload>;

    /// Returns a short hex digest that changes when names, labels, or sizes of the images change.
    fn fingerprint(&self) -> String;

    /// Returns the mask of the object in image `index` (0 or 255), for sources that have one.
    fn mask(&self, _index: usize) -> Option<GrayImage> {
        None
    }

    /// Returns what was found besides images when the source was opened.
    fn notices(&self) -> Notices {
        Notices::default()
    }

    /// Returns how an epoch is composed. Together, the parts contain all images.
    fn parts(&self) -> Vec<SourcePart> {
        vec![SourcePart { len: self.len(), per_epoch: self.len() }]
    }
}

/// Returns the error for a path that does not exist.
fn missing(path: &Path) -> Error {
    Error::Path { path: path.into(), problem: "no such file or folder".into() }
}

/// Returns the extension in lower case; empty if there is none.
fn extension(path: &Path) -> String {
    path.extension().unwrap_or_default().to_string_lossy().to_lowercase()
}

/// Returns whether the path is named like an image file.
pub fn is_image(path: &Path) -> bool {
    IMAGE_EXTENSIONS.contains(&extension(path).as_str())
}

/// Computes the fingerprint of (name, label, size in bytes) triples, in order: 16 hex digits.
pub(crate) fn digest(images: impl Iterator<Item = (String, Option<u32>, u64)>) -> String {
    let mut hash = Sha256::new();
    for (name, label, size) in images {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(label.map_or(u64::MAX, u64::from).to_le_bytes());
        hash.update(size.to_le_bytes());
    }
    hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Number of files whose contents identify a set of images, besides all names and sizes.
const SAMPLED: usize = 16;

/// Computes a digest of the contents of some of `len` files, spread evenly over them, for sets whose
/// files have equal sizes: 16 hex digits. `content` returns `None` for a file that cannot be read.
pub(crate) fn sample(len: usize, content: impl Fn(usize) -> Option<Vec<u8>>) -> String {
    let every = len.div_ceil(SAMPLED).max(1);
    let contents = (0..len).step_by(every).map(|index| {
        let bytes = content(index).unwrap_or_default();
        let digest = Sha256::digest(&bytes);
        (digest.iter().map(|byte| format!("{byte:02x}")).collect(), None, bytes.len() as u64)
    });
    digest(contents)
}

/// Reads an entire image file.
fn read_file(path: &Path) -> Result<Payload> {
    let bytes = plain_file(path, "read")?;
    if bytes > MAX_IMAGE_BYTES {
        let most = MAX_IMAGE_BYTES >> 20;
        let problem =
            format!("the file has {} MiB, more than the limit of {most} MiB", bytes >> 20);
        return Err(Error::Path { path: path.into(), problem });
    }
    std::fs::read(path).map(Payload::Encoded).map_err(|source| Error::Io {
        action: "read",
        path: path.into(),
        source,
    })
}

/// Returns the size of a file in bytes; 0 if it cannot be determined.
fn file_size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |metadata| metadata.len())
}
