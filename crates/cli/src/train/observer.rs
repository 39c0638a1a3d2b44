//! Passes everything that a run reports to its outputs: the metrics files, the console with
//! `log.txt`, `bad_images.tsv`, and `lost_batch.txt`.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use data::loader::BrokenImage;
use trainer::metrics::{JsonlSink, Record, Sink, TensorBoardSink, read_jsonl, write_csv};
use trainer::run::Observer;
use trainer::start::Start;
use trainer::{Error, Result};

use super::run_dir::RunDir;
use super::signals::StopFlag;
use crate::console::Console;

/// The observer of one process of a run. Only the first process writes metrics; each process logs
/// its own broken images and lost batches.
pub struct RunObserver {
    sinks: Vec<Box<dyn Sink>>,
    console: Console,
    metrics: PathBuf,
    csv: PathBuf,
    broken: BrokenLog,
    lost: PathBuf,
    stop: StopFlag,
}

impl RunObserver {
    /// Opens the outputs of process `rank` of a run that continues from `start`. Metrics of later
    /// steps, from before the run was interrupted, are dropped, because those steps are repeated.
    ///
    /// # Errors
    /// Returns an error if an output cannot be read or written.
    pub fn open(
        dir: &RunDir,
        start: Start,
        console: Console,
        stop: StopFlag,
        rank: usize,
    ) -> Result<Self> {
        let metrics = dir.file("metrics.jsonl");
        let resume = (start.step > 0).then_some(start);
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if rank == 0 {
            sinks.push(Box::new(JsonlSink::open(&metrics, resume)?));
            let (folder, kept) = (dir.file("tensorboard"), read_jsonl(&metrics)?);
            sinks.push(Box::new(TensorBoardSink::open(&folder, resume, &kept)?));
        }
        Ok(Self {
            sinks,
            console,
            metrics,
            csv: dir.file("metrics.csv"),
            broken: BrokenLog::open(dir.file(&of_rank("bad_images.tsv", rank)))?,
            lost: dir.file(&of_rank("lost_batch.txt", rank)),
            stop,
        })
    }

    /// Stops the progress bar and, in the first process, writes `metrics.csv`.
    ///
    /// # Errors
    /// Returns an error if the metrics cannot be read or the table cannot be written.
    pub fn finish(&mut self) -> Result<()> {
        self.console.finish();
        if !self.sinks.is_empty() {
            write_csv(&self.metrics, &self.csv)?;
        }
        Ok(())
    }

    /// Returns the console, for messages outside the training loop.
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

    fn lost(&mut self, step: u64, images: &[String]) -> Result<PathBuf> {
        let lines = [format!("# images of step {step}, whose loss or gradient was not finite")];
        let lines: Vec<String> =
            lines.into_iter().chain(images.iter().map(|n| one_field(n))).collect();
        trainer::files::write_atomic(&self.lost, (lines.join("\n") + "\n").as_bytes())?;
        Ok(self.lost.clone())
    }

    fn sync(&mut self) -> Result<()> {
        self.sinks.iter_mut().try_for_each(|sink| sink.sync())
    }

    fn checkpoint(&mut self, path: &Path) -> Result<()> {
        self.console.note(&format!("checkpoint {}", path.display()));
        Ok(())
    }

    fn stop_requested(&self) -> bool {
        self.stop.is_set()
    }
}

/// Returns the name of a per-process file: `name` for the first process, and with the rank before
/// the extension for the others.
pub fn of_rank(name: &str, rank: usize) -> String {
    match (rank, name.rsplit_once('.')) {
        (0, _) | (_, None) => name.to_owned(),
        (_, Some((stem, ending))) => format!("{stem}.{rank}.{ending}"),
    }
}

/// `bad_images.tsv`, which lists each broken file once, with the reason.
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

    /// Adds an image, and returns whether it is new.
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
