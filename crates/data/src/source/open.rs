//! Chooses the reader for a config.

use std::path::Path;

use super::find::{PARQUET, SHARDS, is_address};
#[cfg(feature = "parquet")]
use super::parquet::Parquet;
use super::{Folder, List, Mix, Shards, Source, extension, is_image, missing};
use crate::config::{DataConfig, MixEntry, SourceKind};
use crate::error::{Error, Result};
use crate::synthetic::Synthetic;

/// Opens the source that `config` names.
///
/// # Errors
/// Returns an error if the path does not exist, contains no images, or cannot be read; the message
/// says which.
pub fn open(config: &DataConfig) -> Result<Box<dyn Source>> {
    if !config.mix.is_empty() {
        let open_entry = |entry: &MixEntry| {
            let (path, source) = (entry.path.clone(), entry.source);
            let one = DataConfig { path, source, mix: Vec::new(), ..config.clone() };
            let prefix = if source == SourceKind::Synthetic {
                Some("synthetic")
            } else {
                entry.path.as_deref()
            };
            Ok((prefix.unwrap_or_default().to_owned(), open(&one)?, entry.weight))
        };
        let sources = config.mix.iter().map(open_entry).collect::<Result<_>>()?;
        return Ok(Box::new(Mix::new(sources)?));
    }
    let path = Path::new(config.path_text());
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
    Err(Error::Path { path: config.path_text().into(), problem })
}

/// Determines the reader for `path`; see [`SourceKind::Auto`].
fn detect(path: &Path) -> Result<SourceKind> {
    let problem = |text: &str| Error::Path { path: path.into(), problem: text.into() };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_address(&path.to_string_lossy()) && !PARQUET.is(path) {
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
        _ if is_image(path) => Err(problem("a single image: give the folder that contains it")),
        _ => Err(problem(
            "not a folder, a list (.txt, .csv, .tsv, .jsonl), a shard (.tar, .tar.gz, .tgz) or a .parquet file",
        )),
    }
}
