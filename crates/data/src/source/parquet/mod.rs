//! Hugging Face image datasets: one image per row, in parquet files.

mod chunk;
mod columns;
mod file;
mod pages;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use self::file::{ImageFile, Rows};
use self::pages::PageCache;
use super::find::{PARQUET, together};
use super::labels::Labels;
use super::names::Names;
use super::notices::Notices;
use super::{Payload, Source, digest};
use crate::config::DataConfig;
use crate::error::{Error, Result};

/// The images of one or more parquet files, in the order of file names and rows.
///
/// The image column contains bytes, or is a group with a field `bytes` and optionally `path`, as
/// the `datasets` library writes it. It is named `image` or `img` (or one of a few other common
/// names), or is the only column of that kind. The label is the column `label` (`labels`,
/// `fine_label`, `cls`) with integers of any type, strings, or booleans (0 and 1). Names of classes
/// come from the description of the library, if there is one.
///
/// Opening reads only labels and paths. Reading an image decompresses its page, which is located
/// through the page index of the file or the page headers of its row group. A page contains about 1
/// MB of images in some files, and a whole row group in others. The most recently read pages are
/// cached, up to `data.shard_cache_gb`. Beyond that, memory is bounded by one page and its
/// dictionary per reader thread.
pub struct Parquet {
    files: Vec<ImageFile>,
    /// Index of each file's first image.
    starts: Vec<usize>,
    /// Names of the images: `row/path`, or `row` if the row states no path.
    names: Names,
    labels: Labels,
    notices: Notices,
    cache: PageCache,
}

impl std::fmt::Debug for Parquet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parquet").field("starts", &self.starts).finish_non_exhaustive()
    }
}

impl Parquet {
    /// Opens one file, all `.parquet` files directly in a folder, or those that match a pattern.
    /// Paths are resolved in the same way as by [`Shards::open`](super::Shards::open).
    ///
    /// # Errors
    /// Returns an error if nothing matches, a file cannot be read or has no image column, or there
    /// are no rows.
    pub fn open(config: &DataConfig) -> Result<Self> {
        let open = |blob| {
            let file = ImageFile::open(blob)?;
            let rows = file.rows()?;
            Ok((file, rows))
        };
        let (files, mut notices) = PARQUET.open(config)?;
        let opened: Vec<Result<(ImageFile, Rows)>> =
            together(config, || files.into_par_iter().map(open).collect())?;
        let (mut files, mut starts, mut len) = (Vec::new(), Vec::new(), 0);
        let (mut names, mut texts) = (Names::default(), Vec::new());
        for file in opened {
            let (file, rows) = file?;
            starts.push(len);
            len += file.len();
            for (row, path) in
                (0..file.len()).zip(rows.paths.iter().chain(std::iter::repeat(&None)))
            {
                match path {
                    Some(path) => names.push(&format!("{row}/{path}")),
                    None => names.push(&row.to_string()),
                }
            }
            let missing = file.len() - rows.labels.len();
            texts.extend(rows.labels);
            texts.extend(std::iter::repeat_n(None, missing));
            notices.append(&format!("{}/", file.name()), rows.notices);
            files.push(file);
        }
        if len == 0 {
            let problem = format!("no rows in its {} parquet file(s)", files.len());
            return Err(Error::Path { path: config.path_text().into(), problem });
        }
        names.shrink();
        let mut labels = Labels::from_texts(&texts);
        let told = files.iter().find_map(ImageFile::class_names);
        if let (true, Some(told)) = (labels.names.is_empty(), told) {
            let known = |label: &Option<u32>| label.is_none_or(|l| (l as usize) < told.len());
            if labels.labels.iter().all(known) {
                labels.names = told;
            }
        }
        let cache = PageCache::new(config.shard_cache_gb);
        Ok(Self { files, starts, names, labels, notices, cache })
    }

    /// Returns the number of the file that contains image `index`, and its row in that file.
    fn find(&self, index: usize) -> Option<(usize, usize)> {
        // An empty file starts at the same index as the next one, so the last of several equal
        // starts is the right one.
        let file = self.starts.partition_point(|&start| start <= index).checked_sub(1)?;
        (index < self.len()).then(|| (file, index - self.starts[file]))
    }
}

impl Source for Parquet {
    fn kind(&self) -> &'static str {
        "parquet"
    }

    fn len(&self) -> usize {
        self.names.len()
    }

    fn name(&self, index: usize) -> String {
        let Some((file, _)) = self.find(index) else { return String::new() };
        format!("{}/{}", self.files[file].name(), self.names.get(index).unwrap_or_default())
    }

    fn label(&self, index: usize) -> Option<u32> {
        self.labels.labels.get(index).copied().flatten()
    }

    fn class_names(&self) -> &[String] {
        &self.labels.names
    }

    fn load(&self, index: usize) -> Result<Payload> {
        let (file, row) = self.find(index).ok_or(Error::Index { index, len: self.len() })?;
        self.files[file].image(row, file, &self.cache).map(Payload::Encoded)
    }

    fn notices(&self) -> Notices {
        self.notices.clone()
    }

    /// Depends on names, labels, and the sizes of the files; the sizes of single images would
    /// require reading all of them.
    fn fingerprint(&self) -> String {
        let rows = (0..self.len()).map(|index| (self.name(index), self.label(index), 0));
        digest(self.files.iter().map(|file| (file.name(), None, file.bytes())).chain(rows))
    }
}
