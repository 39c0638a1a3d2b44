//! Writes scalars as TensorBoard event files.
//!
//! A resumed run adds a file that begins with a session start at the first step that it will
//! write, so that TensorBoard discards what the interrupted run wrote about later steps. If the
//! probes of the step that it continues from are missing, an earlier attempt to continue may
//! already have written them. The session then starts at that step, and its other records are
//! written again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Record, Sink, event};
use crate::error::{Error, Result};
use crate::start::Start;

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
    /// `resume` is where the run continues from, or `None` for a new run. TensorBoard ignores what
    /// files of an earlier attempt contain about later steps and about missing probes. `kept` are
    /// the records that the run keeps; if probes are missing, those of their step are written
    /// again.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be created or read, or if the file cannot be written.
    pub fn open(dir: &Path, resume: Option<Start>, kept: &[Record]) -> Result<Self> {
        fs::create_dir_all(dir).map_err(Error::io(dir, "create the folder"))?;
        let (path, is_first) = next_path(dir, wall_time())?;
        let file = OpenOptions::new()
            .create_new(true)
            .append(true)
            .open(&path)
            .map_err(Error::io(&path, "create the file"))?;
        let mut sink = Self { file, path };
        sink.put(&event::file_version(wall_time()))?;
        if is_first {
            return Ok(sink);
        }
        match resume {
            Some(Start { step, probes_missing: true }) => {
                sink.put(&event::session_start(wall_time(), step))?;
                kept.iter().filter(|record| record.step == step).try_for_each(|r| sink.write(r))?;
            }
            // The records of the step that the run continues from are already there.
            Some(Start { step, .. }) => sink.put(&event::session_start(wall_time(), step + 1))?,
            None => sink.put(&event::session_start(wall_time(), 0))?,
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

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "flush the file"))
    }
}

/// Returns the seconds since 1970; 0 if the clock is set before that.
fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Returns a path that sorts after the event files in `dir`, because TensorBoard reads them in the
/// order of their names, and whether it is the first one.
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

/// Returns the seconds and the count in the name of an event file.
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
            let sink = TensorBoardSink::open(dir.path(), resume, &[]).unwrap();
            fs::read(&sink.path).unwrap()
        };
        let at = |step| Some(Start { step, probes_missing: false });
        let version_only = event::file_version(0.0).len();
        assert_eq!(open(at(7)).len(), version_only);
        // Session starts at step 8: field 2, value 8, then the session log.
        let resumed = open(at(7));
        assert!(resumed.len() > version_only);
        assert!(resumed.windows(6).any(|w| w == [0x10, 8, 0x3A, 2, 8, 1]), "{resumed:?}");
        let again = open(None);
        assert!(again.windows(4).any(|w| w == [0x3A, 2, 8, 1]), "{again:?}");
    }

    /// Returns the steps and names of the values that TensorBoard shows: a session start discards
    /// what was read before about its step and later ones.
    fn shown(dir: &Path) -> Vec<(u64, String)> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let mut shown = Vec::new();
        for event in files.iter().flat_map(|path| event::read(&fs::read(path).unwrap())) {
            if event.starts_session {
                shown.retain(|(step, _)| *step < event.step);
            }
            shown.extend(event.tags.into_iter().map(|tag| (event.step, tag)));
        }
        shown
    }

    #[test]
    fn a_probe_that_was_missing_is_shown_once_however_often_the_run_continues() {
        let dir = tempfile::tempdir().unwrap();
        let record =
            |step, name: &str| Record { step, epoch: 0.0, values: vec![(name.to_owned(), 0.5)] };
        let kept = [3, 4].map(|step| record(step, "loss/total"));
        let mut first = TensorBoardSink::open(dir.path(), None, &[]).unwrap();
        kept.iter().for_each(|record| first.write(record).unwrap());
        let start = Some(Start { step: 4, probes_missing: true });
        for _ in 0..3 {
            let mut sink = TensorBoardSink::open(dir.path(), start, &kept).unwrap();
            sink.write(&record(4, "probe/knn_top1")).unwrap();
            sink.write(&record(5, "loss/total")).unwrap();
            let expected = [(3, "loss"), (4, "loss"), (4, "probe"), (5, "loss")];
            let shown = shown(dir.path());
            let shown: Vec<_> =
                shown.iter().map(|(step, tag)| (*step, tag.split('/').next().unwrap())).collect();
            assert_eq!(shown, expected);
        }
    }
}
