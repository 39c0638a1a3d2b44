//! Where everything goes that a run says: metrics files, the console, `log.txt`, `bad_images.tsv`.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use trainer::metrics::{JsonlSink, Record, Sink, TensorBoardSink, write_csv};
use trainer::run::Observer;
use trainer::{Error, Result};

use super::run_dir::RunDir;
use super::signals::StopFlag;
use crate::console::Console;

/// The observer of a run of one process.
pub struct RunObserver {
    sinks: Vec<Box<dyn Sink>>,
    console: Console,
    metrics: PathBuf,
    csv: PathBuf,
    broken: BrokenLog,
    stop: StopFlag,
}

impl RunObserver {
    /// Opens the outputs of a run that continues after `start` steps; later lines of an earlier
    /// attempt are dropped, they will be written again.
    pub fn open(dir: &RunDir, start: u64, console: Console, stop: StopFlag) -> Result<Self> {
        let metrics = dir.file("metrics.jsonl");
        let resume = (start > 0).then_some(start);
        Ok(Self {
            sinks: vec![
                Box::new(JsonlSink::open(&metrics, resume)?),
                Box::new(TensorBoardSink::open(&dir.file("tensorboard"), resume)?),
            ],
            console,
            metrics,
            csv: dir.file("metrics.csv"),
            broken: BrokenLog::open(dir.file("bad_images.tsv"))?,
            stop,
        })
    }

    /// Ends the progress bar and writes the summary table.
    pub fn finish(&mut self) -> Result<()> {
        self.console.finish();
        write_csv(&self.metrics, &self.csv)?;
        Ok(())
    }

    /// The console, for messages outside the loop.
    pub fn console(&mut self) -> &mut Console {
        &mut self.console
    }
}

impl Observer for RunObserver {
    fn record(&mut self, record: &Record) -> Result<()> {
        for sink in &mut self.sinks {
            sink.write(record)?;
        }
        self.console.record(record);
        Ok(())
    }

    fn broken(&mut self, images: &[BrokenImage]) -> Result<()> {
        for image in images {
            if self.broken.add(image)? {
                self.console.warn(&format!("skipped {}: {}", image.name, image.reason));
            }
        }
        Ok(())
    }

    fn warning(&mut self, text: &str) {
        self.console.warn(text);
    }

    fn checkpoint(&mut self, path: &Path) -> Result<()> {
        for sink in &mut self.sinks {
            sink.flush()?;
        }
        self.console.note(&format!("checkpoint {}", path.display()));
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop.is_set()
    }
}

/// `bad_images.tsv`: each broken file once, with its reason.
struct BrokenLog {
    path: PathBuf,
    named: HashSet<String>,
    file: Option<File>,
}

impl BrokenLog {
    fn open(path: PathBuf) -> Result<Self> {
        let earlier = if path.exists() {
            std::fs::read_to_string(&path).map_err(Error::io(&path, "read the file"))?
        } else {
            String::new()
        };
        let named = earlier.lines().filter_map(|l| l.split('\t').next()).map(str::to_owned);
        Ok(Self { named: named.collect(), path, file: None })
    }

    /// Notes a file; true if it was not known yet.
    fn add(&mut self, image: &BrokenImage) -> Result<bool> {
        let name = one_field(&image.name);
        if !self.named.insert(name.clone()) {
            return Ok(false);
        }
        let mut open = || -> std::io::Result<()> {
            if self.file.is_none() {
                let new = !self.path.exists();
                let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
                if new {
                    writeln!(file, "file\treason")?;
                }
                self.file = Some(file);
            }
            match &mut self.file {
                Some(file) => writeln!(file, "{name}\t{}", one_field(&image.reason)),
                None => Ok(()),
            }
        };
        open().map_err(Error::io(&self.path, "write the file"))?;
        Ok(true)
    }
}

fn one_field(text: &str) -> String {
    text.replace(['\t', '\n', '\r'], " ")
}
