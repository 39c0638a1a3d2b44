//! `metrics.jsonl`: one JSON object per record, `{"step":10,"epoch":0.5,"loss/total":-0.9}`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{Record, Sink};
use crate::error::{Error, Result};
use crate::start::Start;

/// Appends each record as one line in a single write, without a buffer, so that readers see it at
/// once.
#[derive(Debug)]
pub struct JsonlSink {
    file: File,
    path: PathBuf,
}

impl JsonlSink {
    /// Opens `path` for appending.
    ///
    /// `resume` is where the run continues from. Lines of later steps and of missing probes are
    /// removed, because the run writes them again, and so is a truncated line. `None` removes all
    /// lines.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, replaced, or opened.
    pub fn open(path: &Path, resume: Option<Start>) -> Result<Self> {
        keep_until(path, resume)?;
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .map_err(Error::io(path, "open the file"))?;
        Ok(Self { file, path: path.to_owned() })
    }
}

impl Sink for JsonlSink {
    fn write(&mut self, record: &Record) -> Result<()> {
        self.file.write_all(&line(record)).map_err(Error::io(&self.path, "write a line"))
    }

    fn sync(&mut self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(&self.path, "flush the file"))
    }
}

/// Rewrites the file without the lines that the run writes again. The old file stays intact until
/// the new one is complete.
fn keep_until(path: &Path, resume: Option<Start>) -> Result<()> {
    let old = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io(path, "read the file")(e)),
    };
    let kept = |bytes: &[u8]| match (parse(bytes), resume) {
        (Some(record), Some(Start { step, probes_missing })) => {
            let again = probes_missing && record.step == step && is_of_probe(&record);
            record.step <= step && !again
        }
        _ => false,
    };
    let copy = base::write_atomic_with(path, |new| -> io::Result<()> {
        for bytes in old.split(b'\n') {
            let bytes = bytes?;
            if kept(&bytes) {
                new.write_all(&bytes)?;
                new.write_all(b"\n")?;
            }
        }
        Ok(())
    });
    copy.map_err(Error::io(path, "remove the lines after the step to resume from"))
}

/// Returns whether a record contains measurements of probes.
fn is_of_probe(record: &Record) -> bool {
    record.values.iter().any(|(name, _)| name.starts_with("probe/"))
}

/// Reads all records of a file in order; invalid lines, such as one that is still being written,
/// are ignored.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn read_jsonl(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).map_err(Error::io(path, "read the file"))?;
    Ok(bytes.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

fn line(record: &Record) -> Vec<u8> {
    let mut line = format!("{{\"step\":{},\"epoch\":{}", record.step, number(record.epoch));
    for (name, value) in &record.values {
        line.push(',');
        line.push_str(&Value::from(name.as_str()).to_string());
        line.push(':');
        line.push_str(&number(*value));
    }
    line.push_str("}\n");
    line.into_bytes()
}

/// Formats a number; non-finite values become `null`, because JSON cannot represent them.
fn number(value: f64) -> String {
    Value::from(value).to_string()
}

fn parse(line: &[u8]) -> Option<Record> {
    let object: Map<String, Value> = serde_json::from_slice(line).ok()?;
    let step = object.get("step")?.as_u64()?;
    let epoch = object.get("epoch").and_then(Value::as_f64).unwrap_or(f64::NAN);
    let values = object
        .into_iter()
        .filter(|(name, value)| {
            !matches!(name.as_str(), "step" | "epoch") && (value.is_number() || value.is_null())
        })
        .map(|(name, value)| (name, value.as_f64().unwrap_or(f64::NAN)))
        .collect();
    Some(Record { step, epoch, values })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(step: u64, loss: f64) -> Record {
        let values = vec![("loss/total".to_owned(), loss), ("optim/lr".to_owned(), 1e-3)];
        Record { step, epoch: step as f64 / 4.0, values }
    }

    fn at(step: u64, probes_missing: bool) -> Start {
        Start { step, probes_missing }
    }

    #[test]
    fn a_record_is_a_line() {
        let text = String::from_utf8(line(&record(3, -0.5))).unwrap();
        assert_eq!(text, "{\"step\":3,\"epoch\":0.75,\"loss/total\":-0.5,\"optim/lr\":0.001}\n");
        let text = String::from_utf8(line(&record(3, f64::INFINITY))).unwrap();
        assert!(text.contains("\"loss/total\":null"), "{text}");
    }

    #[test]
    fn numbers_come_back() {
        for value in [0.1, -1e-300, f64::MAX, 4.9e-324, 1.0 / 3.0] {
            assert_eq!(number(value).parse::<f64>().unwrap().to_bits(), value.to_bits(), "{value}");
            let back = parse(&line(&record(1, value))).unwrap().get("loss/total").unwrap();
            assert!((back - value).abs() <= value.abs() * 1e-15, "{value} {back}");
        }
        let back = parse(&line(&record(1, f64::NAN))).unwrap();
        assert!(back.get("loss/total").is_some_and(f64::is_nan));
    }

    #[test]
    fn resuming_drops_later_and_broken_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let mut sink = JsonlSink::open(&path, None).unwrap();
        for step in [1, 2, 2, 3] {
            sink.write(&record(step, 0.0)).unwrap();
        }
        let whole = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{whole}{{\"step\":2,\"epo")).unwrap();

        let mut sink = JsonlSink::open(&path, Some(at(2, false))).unwrap();
        sink.write(&record(3, 9.0)).unwrap();
        let found: Vec<_> = read_jsonl(&path)
            .unwrap()
            .into_iter()
            .map(|r| (r.step, r.get("loss/total").unwrap()))
            .collect();
        assert_eq!(found, [(1, 0.0), (2, 0.0), (2, 0.0), (3, 9.0)]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 4);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");

        JsonlSink::open(&path, None).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn a_probe_that_is_measured_again_has_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics.jsonl");
        let probe = |step| {
            let values = vec![("probe/knn_top1".to_owned(), 0.5)];
            Record { step, epoch: 0.0, values }
        };
        let mut sink = JsonlSink::open(&path, None).unwrap();
        for record in [probe(0), record(1, 0.0), record(2, 0.0), probe(2)] {
            sink.write(&record).unwrap();
        }
        let lines = |start| {
            JsonlSink::open(&path, Some(start)).unwrap();
            fs::read_to_string(&path).unwrap().lines().count()
        };
        assert_eq!(lines(at(2, false)), 4);
        assert_eq!(
            lines(at(2, true)),
            3,
            "the line of the step goes, that of an earlier probe stays"
        );
    }

    #[test]
    fn an_unwritable_place_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("no/such/metrics.jsonl");
        let message = JsonlSink::open(&path, None).unwrap_err().to_string();
        assert!(message.contains("no/such/metrics.jsonl"), "{message}");
    }
}
