//! Errors of this crate: what failed, for which file or key, and what to do about it.

use std::path::PathBuf;

use base::{counted, printable};

/// A result with this crate's [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The reason why no memory was available for a batch, reported by the provider of the memory.
pub type MemoryError = Box<dyn std::error::Error + Send + Sync>;

/// All errors that can occur on the way from a path to a batch.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system rejected a file operation.
    #[error("cannot {action} {path}", path = .path.display())]
    Io {
        /// The attempted action: "open", "read", "write", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// `data.path` is not valid (missing, empty, or of the wrong kind).
    #[error("{path}: {problem}", path = .path.display())]
    Path {
        /// The path as given by the user.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// A line of a list file cannot be used.
    #[error("{path}, line {line}: {problem}", path = .path.display())]
    List {
        /// The list file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A tar or tar.gz shard cannot be read to the end.
    #[error("shard {path} is truncated or not a tar file: copy or download it again", path = .path.display())]
    Shard {
        /// The shard.
        path: PathBuf,
        /// The error of the reader.
        source: std::io::Error,
    },
    /// A shard differs from the one that was listed.
    #[error(
        "shard {path} has changed since it was listed ({problem}): if this was intended, rebuild \
         its index (if it has one) with `simdino data index`, and start over",
        path = .path.display()
    )]
    ShardChanged {
        /// The shard.
        path: PathBuf,
        /// The difference.
        problem: String,
    },
    /// An object on a server could not be read.
    #[error(
        "cannot read {path}: {problem} (see data.remote_retries and data.remote_timeout_s)",
        path = .path.display()
    )]
    Remote {
        /// URL of the object.
        path: PathBuf,
        /// What was attempted, how often, and the last failure.
        problem: String,
    },
    /// There is no space for the images of a compressed shard.
    #[error(
        "cannot decompress {path} into {folder}: set data.spill_dir to a folder with more space, \
         raise data.shard_cache_gb, or gunzip the shards (plain .tar files are read in place)",
        path = .path.display(), folder = .folder.display()
    )]
    Spill {
        /// The shard.
        path: PathBuf,
        /// The folder for temporary files.
        folder: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The process may not open another file for the images of a compressed shard.
    #[error(
        "cannot decompress {path}, because too many files are open, one for each compressed \
         shard that does not fit in memory: raise the limit with `ulimit -n`, raise \
         data.shard_cache_gb, or gunzip the shards (plain .tar files are read in place)",
        path = .path.display()
    )]
    SpillFiles {
        /// The shard.
        path: PathBuf,
        /// The error of the system.
        source: std::io::Error,
    },
    /// A parquet file cannot be read or contains no images.
    #[error("parquet file {path}: {problem}", path = .path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting is out of range or does not fit the others.
    #[error("{key}: {problem}")]
    Config {
        /// The key, with its section.
        key: &'static str,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An index is out of range.
    #[error("image index {index} is out of range for a dataset of size {len}")]
    Index {
        /// The requested index.
        index: usize,
        /// Number of images.
        len: usize,
    },
    /// The bytes are not a usable image.
    #[error(transparent)]
    Decode(#[from] decode::Error),
    /// The shorter side of an image is below `data.min_side`.
    #[error("{width}x{height} pixels, smaller than data.min_side = {min_side}")]
    TooSmall {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Minimum of the shorter side in pixels.
        min_side: u32,
    },
    /// An image of a dataset cannot be used.
    #[error("image {name}", name = printable(.name))]
    Image {
        /// Name of the image in its source.
        name: String,
        /// The reason.
        source: Box<Error>,
    },
    /// The decoded image cannot be encoded or written.
    #[error("cannot write image {path}", path = .path.display())]
    WriteImage {
        /// The file.
        path: PathBuf,
        /// The error of the encoder.
        source: image::ImageError,
    },
    /// No memory is available for the crops of a batch.
    #[error(
        "cannot allocate {bytes} bytes for crops: lower data.prefetch or train.batch_size, or \
         raise train.accumulate"
    )]
    BatchMemory {
        /// Number of bytes requested.
        bytes: usize,
        /// The error of the provider of the memory.
        source: MemoryError,
    },
    /// An image cannot be augmented.
    #[error(transparent)]
    Augment(#[from] augment::Error),
    /// A batch is larger than the dataset.
    #[error(
        "train.batch_size = {batch} is larger than the dataset ({}): lower train.batch_size to \
         {len} or less, or add images",
        counted(*.len, "image", "images")
    )]
    BatchTooLarge {
        /// Batch size, over all processes and micro-batches.
        batch: usize,
        /// Number of images in the dataset.
        len: usize,
    },
    /// More images are broken than `data.max_bad_fraction` allows.
    #[error(
        "{broken} of the first {read} images read are broken{again}, more than \
         data.max_bad_fraction = {max_bad_fraction} allows; the first is {first} ({reason}): `simdino data check` lists \
         all of them; repair or remove them, or raise data.max_bad_fraction",
        first = printable(.first),
        again = if files == broken { String::new() } else { format!(" (different ones: {files})") }
    )]
    TooManyBroken {
        /// Broken images, each as often as it was read.
        broken: usize,
        /// Different ones among them.
        files: usize,
        /// Images read.
        read: usize,
        /// The limit, as a fraction.
        max_bad_fraction: f64,
        /// Name of the first broken image.
        first: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An image and all of its replacements are broken.
    #[error(
        "found no readable image for a place in a batch (tried {tried}); the first broken image is \
         {first} ({reason}): run `simdino data check`",
        first = printable(.first)
    )]
    NoReadableImage {
        /// Number of images tried.
        tried: usize,
        /// Name of the first broken image.
        first: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The dataset was stopped while a loader waited for images.
    #[error("interrupted while waiting for images")]
    Interrupted,
    /// A worker thread panicked or could not be started.
    #[error("a data worker failed: {message}")]
    Worker {
        /// The message.
        message: String,
    },
}

impl Error {
    /// Returns the reason without the name of the file or image, for contexts that already show
    /// it.
    pub fn reason(&self) -> String {
        match self {
            Self::Image { source, .. } => source.reason(),
            Self::Path { problem, .. } | Self::List { problem, .. } => problem.clone(),
            other => other.chain(),
        }
    }

    /// Returns the whole chain of causes in one line; see [`base::error_chain`].
    pub fn chain(&self) -> String {
        base::error_chain(self)
    }
}

#[cfg(test)]
mod tests {
    use super::Error;

    #[test]
    fn a_reason_is_said_once() {
        let png = b"\x89PNG\r\n\x1a\n\0\0\0\x01PLTE0000".as_slice();
        let error = Error::from(decode::decode(png).unwrap_err()).chain();
        assert_eq!(error.matches("the palette ends inside a color").count(), 1, "{error}");
        assert!(error.starts_with("broken png image: "), "{error}");
    }

    #[test]
    fn an_end_of_line_in_a_name_does_not_end_the_sentence() {
        let reason = "empty".to_owned();
        let error = Error::NoReadableImage { tried: 3, first: "a\n.jpg".to_owned(), reason };
        assert!(error.chain().ends_with(r"a\n.jpg (empty): run `simdino data check`"), "{error}");
    }
}
