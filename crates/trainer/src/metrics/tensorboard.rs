//! Scalars as TensorBoard event files.
//!
//! A resumed run adds a file that begins with a session start at the first step that it will
//! write, so that TensorBoard discards what the interrupted run wrote about later steps.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Record, Sink, event};
use crate::error::{Error, Result};

const PREFIX: &str = "events.out.tfevents.";

/// Writes each record as one event and flushes it.
#[derive(Debug)]
pub struct TensorBoardSink {
    file: File,
    path: PathBuf,
}

impl TensorBoardSink {
    /// Opens a new event file in the folder `dir`, which is created if necessary.
    ///
    /// `resume_step` is the step that the run continues from, or `None` for a new run; TensorBoard
    /// then ignores what files of an earlier attempt contain about later steps.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or read, or if the file cannot be written.
    pub fn open(dir: &Path, resume_step: Option<u64>) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir, "make the folder"))?;
        let (path, is_first) = next_path(dir, wall_time())?;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path, "create the file"))?;
        let mut sink = Self { file, path };
        sink.put(&event::file_version(wall_time()))?;
        if !is_first {
            // The record of the step that the run resumes from exists already; the next one is
            // new.
            let first_new = resume_step.map_or(0, |step| step + 1);
            sink.put(&event::session_start(wall_time(), first_new))?;
        }
        Ok(sink)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io(&self.path, "write an event"))
    }
}

impl Sink for TensorBoardSink {
    fn write(&mut self, record: &Record) -> Result<()> {
        self.put(&event::scalars(wall_time(), record.step, &record.values))
    }

    fn flush(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "flush the file"))
    }
}

/// Seconds since 1970; 0 if the clock is set before that.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a name that sorts after the event files in `dir`, because TensorBoard reads them in
/// order of their names, and whether it is the first.
fn next_path(dir: &Path, now: f64) -> Result<(PathBuf, bool)> {
    let mut last = None;
    for entry in fs::read_dir(dir).map_err(Error::io(dir, "read the folder"))? {
        let name = entry.map_err(Error::io(dir, "read the folder"))?.file_name();
        last = last.max(name.to_str().and_then(parse_name));
    }
    let (mut seconds, mut count) = (now as u64, 0);
    if let Some((last_seconds, last_count)) = last {
        seconds = seconds.max(last_seconds);
        count = last_count + 1;
    }
    let name = format!("{PREFIX}{seconds:010}.{count:04}.simdino");
    Ok((dir.join(name), last.is_none()))
}

/// Seconds and count in the name of an event file.
fn parse_name(name: &str) -> Option<(u64, u64)> {
    let mut parts = name.strip_prefix(PREFIX)?.split('.');
    let seconds = parts.next()?.parse().ok()?;
    let count = parts.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    Some((seconds, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_in_the_order_of_writing() {
        let dir = tempfile::tempdir().unwrap();
        let mut names = Vec::new();
        // A clock that stands still, and one that goes backward.
        for (i, now) in [1000.0, 1000.9, 900.0, 2000.0].into_iter().enumerate() {
            let (path, is_first) = next_path(dir.path(), now).unwrap();
            assert_eq!(is_first, i == 0);
            fs::write(&path, "").unwrap();
            names.push(path);
        }
        let mut sorted = names.clone();
        sorted.sort();
        assert_eq!(sorted, names);
    }

    #[test]
    fn a_resumed_file_starts_a_session() {
        let dir = tempfile::tempdir().unwrap();
        let open = |resume| {
            let sink = TensorBoardSink::open(dir.path(), resume).unwrap();
            fs::read(&sink.path).unwrap()
        };
        let version_only = event::file_version(0.0).len();
        assert_eq!(open(Some(7)).len(), version_only);
        // Session starts at step 8: field 2, value 8, then the session log.
        let resumed = open(Some(7));
        assert!(resumed.len() > version_only);
        assert!(resumed.windows(6).any(|w| w == [0x10, 8, 0x3A, 2, 8, 1]), "{resumed:?}");
        let again = open(None);
        assert!(again.windows(4).any(|w| w == [0x3A, 2, 8, 1]), "{again:?}");
    }
}
