//! `reproduce.json`: what was measured, so that it is not measured again.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use eval::record::Record;
use serde::{Deserialize, Serialize};
use serde_json::json;
use trainer::files::write_atomic;

use crate::failure::{Context, Failure, Result};

use super::page::Line;

/// A command that was run, and its result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    pub row: String,
    pub measure: String,
    pub command: Vec<String>,
    /// Fingerprint of the weights at that time.
    pub fingerprint: String,
    pub record: Record,
}

/// The file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    finished: Vec<Finished>,
}

impl Kept {
    /// Reads the file in `folder`; without a file, nothing was measured.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("reproduce.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(Self { path, finished: Vec::new() });
            }
            Err(error) => {
                return Err(error).context(|| format!("{}: cannot read the file", path.display()));
            }
        };
        let damaged = |error: serde_json::Error| {
            let path = path.display();
            Failure::failed(format!(
                "{path}: the file is damaged; remove it to measure anew: {error}"
            ))
        };
        let mut entries: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&text).map_err(damaged)?;
        let finished = entries.remove("finished").unwrap_or_default();
        let finished = serde_json::from_value(finished).map_err(damaged)?;
        Ok(Self { path, finished })
    }

    /// The result of a command by this version with the same weights, if there is one. Data are not compared:
    /// a folder is taken to contain what it did.
    pub fn find(&self, command: &[String], fingerprint: &str) -> Option<&Finished> {
        let version = env!("CARGO_PKG_VERSION");
        self.finished.iter().find(|one| {
            one.command == command
                && one.fingerprint == fingerprint
                && one.record.version == version
        })
    }

    /// Adds a result, in the place of an earlier one of the same command.
    pub fn put(&mut self, finished: Finished) {
        self.finished.retain(|one| one.command != finished.command);
        self.finished.push(finished);
    }

    /// Writes the file, with the lines of the table.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, lines: &[Line]) -> Result<()> {
        let text =
            serde_json::to_string_pretty(&json!({"lines": lines, "finished": self.finished}))?;
        let what = || format!("{}: cannot write the file", self.path.display());
        self.path.parent().map_or(Ok(()), fs::create_dir_all).context(what)?;
        write_atomic(&self.path, (text + "\n").as_bytes()).context(what)
    }
}
