//! The terminal output of a run: a progress bar on a terminal, plain lines elsewhere. Both go to
//! standard error, so that standard output is reserved for results.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base::printable;
use data::loader::BrokenImage;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use report::percent;
use trainer::metrics::Record;

use crate::failure::{Context, Failure, Result};
use crate::progress::draws_bars;
pub use crate::progress::progress;

/// The bar and the pace, then how training goes; together less wide than most terminals.
const TEMPLATE: &str = "{pos}/{len} {bar:20} {prefix}\n{wide_msg}";

/// Prints an answer on standard output. A reader that has gone away, such as `head`, is no failure.
///
/// # Errors
/// If the output cannot be written for another reason, such as a full disk.
pub fn answer(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write the answer: {e}")))
        }
        _ => Ok(()),
    }
}

/// Says something on standard error, which is not part of the answer.
pub fn note(sentence: &str) {
    // Nobody is left to be told when standard error is gone.
    let _ = writeln!(io::stderr(), "simdino: {}", printable(sentence));
}

/// Says which images of a set were skipped. One that several networks or protocols meet is named once;
/// images of two sets may have the same name.
pub fn name_skipped(set: &str, images: &[BrokenImage]) {
    static NAMED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    for image in images {
        if named.insert((set.to_owned(), image.name.clone())) {
            note(&format!("warning: skipped {}: {}", image.name, image.reason));
        }
    }
}

/// Shows records as they come.
#[derive(Debug, Default)]
pub struct Console {
    bar: Option<ProgressBar>,
    silent: bool,
    total_steps: Option<u64>,
    log: Option<File>,
}

impl Console {
    /// A console without progress so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// A console that writes to its file alone: that of a process beside the first.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Writes every line to the end of a file, too, from now on.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn log_to(&mut self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        self.log = Some(file.context(|| format!("{}: cannot open the log", path.display()))?);
        Ok(())
    }

    /// Shows progress from now on, of a run that has done `start` of `total_steps` steps.
    pub fn start(&mut self, start: u64, total_steps: u64) {
        self.total_steps = Some(total_steps);
        if self.silent || !draws_bars() {
            return;
        }
        let target = ProgressDrawTarget::stderr_with_hz(4);
        let bar = ProgressBar::with_draw_target(Some(total_steps), target);
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_position(start);
        self.bar = Some(bar);
    }

    /// A sentence among the progress.
    pub fn note(&self, sentence: &str) {
        let sentence = &*printable(sentence);
        self.log(sentence);
        match &self.bar {
            Some(bar) if !bar.is_finished() => bar.println(sentence),
            _ if self.silent => {}
            _ => {
                let _ = writeln!(io::stderr(), "{sentence}");
            }
        }
    }

    fn log(&self, line: &str) {
        if let Some(mut file) = self.log.as_ref() {
            // The log is a courtesy: what a run needs is in its other files, which are checked.
            let _ = writeln!(file, "{line}");
        }
    }

    /// Something the user should look at.
    pub fn warn(&self, sentence: &str) {
        self.note(&format!("warning: {sentence}"));
    }

    /// Shows a record: a training step's in the bar or on a line, another's on a line.
    pub fn record(&self, record: &Record) {
        if record.get("train/skipped").is_none() {
            return self.note(&other_line(record));
        }
        let (progress, pace) = (progress_words(record), pace_words(record));
        let of = self.total_steps.map(|total| format!("/{total}")).unwrap_or_default();
        let (step, epoch) = (record.step, record.epoch);
        let line = format!("step {step}{of} epoch {epoch:.1} {progress} {pace}");
        let Some(bar) = &self.bar else { return self.note(&line) };
        self.log(&line);
        bar.set_position(record.step);
        bar.set_prefix(pace);
        bar.set_message(progress);
    }

    /// Leaves the bar as it is and takes no more records into it.
    pub fn finish(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
            // The bar leaves the cursor at its end.
            let _ = writeln!(io::stderr());
        }
    }
}

/// How training goes: the loss, its terms, and where the coding rate stands; what is there of it.
fn progress_words(record: &Record) -> String {
    let get = |name: &str| record.get(name);
    if get("loss/total").is_none() {
        return "skipped".to_owned();
    }
    let mut parts = Vec::new();
    for (label, name) in [
        ("loss", "loss/total"),
        ("compression", "loss/compression"),
        ("expansion", "loss/expansion"),
        ("cls", "loss/cls"),
        ("patches", "loss/patches"),
        ("koleo", "loss/koleo"),
    ] {
        parts.extend(get(name).map(|value| format!("{label} {value:.4}")));
    }
    if let (Some(floor), Some(ceiling)) = (get("rate/floor"), get("rate/ceiling")) {
        let position = get("rate/position").filter(|position| position.is_finite());
        let position = position.map(|at| format!(", at {}", percent(at, 0))).unwrap_or_default();
        parts.push(format!("(floor {floor:.3}, ceiling {ceiling:.3}{position})"));
    }
    parts.join(" ")
}

/// How fast it goes and what it takes; what is there of it.
fn pace_words(record: &Record) -> String {
    let get = |name: &str| record.get(name);
    let memory = get("memory/device_gb").or_else(|| get("memory/process_gb"));
    let parts = [
        get("optim/lr").map(|lr| format!("lr {lr:.1e}")),
        get("speed/img_s").map(|speed| format!("img/s {speed:.0}")),
        get("speed/data_wait").map(|wait| format!("data-wait {}", percent(wait, 0))),
        memory.map(|gb| format!("mem {gb:.1} GB")),
        get("time/eta_s").map(|eta| format!("eta {}", clock(eta))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A record that is not of a training step, such as a probe's.
fn other_line(record: &Record) -> String {
    let values: Vec<String> = record
        .values
        .iter()
        .map(|(name, value)| match name.strip_prefix("probe/") {
            Some("effective_rank") => format!("effective rank {value:.1}"),
            Some("effective_dimension") => format!("effective dimension {value:.1}"),
            Some(name) => format!("{} {}", probe_name(name), percent(*value, 1)),
            None => format!("{name} {value:.4}"),
        })
        .collect();
    format!("step {} epoch {:.1} {}", record.step, record.epoch, values.join(", "))
}

fn probe_name(name: &str) -> &str {
    match name {
        "knn_top1" => "k-NN",
        "knn_top5" => "k-NN top-5",
        "untrained" => "untrained network",
        "pixels" => "raw pixels",
        "logistic_top1" => "logistic regression",
        "segment_knn_miou" => "segmentation mIoU",
        other => other,
    }
}

/// Seconds as hours, minutes and seconds.
fn clock(seconds: f64) -> String {
    let seconds = Duration::try_from_secs_f64(seconds.round()).map_or(0, |d| d.as_secs());
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(values: &[(&str, f64)]) -> Record {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Record { step: 120, epoch: 1.2, values }
    }

    #[test]
    fn a_training_step_reads_well() {
        let record = record(&[
            ("loss/total", -0.93),
            ("loss/compression", 0.61),
            ("loss/expansion", 0.42),
            ("rate/floor", 0.02),
            ("rate/ceiling", 0.45),
            ("rate/position", 0.93),
            ("optim/lr", 4.1e-4),
            ("speed/img_s", 310.4),
            ("speed/data_wait", 0.03),
            ("memory/process_gb", 1.2),
            ("time/eta_s", 845.0),
        ]);
        assert_eq!(
            progress_words(&record),
            "loss -0.9300 compression 0.6100 expansion 0.4200 (floor 0.020, ceiling 0.450, at 93%)"
        );
        assert_eq!(pace_words(&record), "lr 4.1e-4 img/s 310 data-wait 3% mem 1.2 GB eta 0:14:05");
    }

    #[test]
    fn values_that_are_absent_are_left_out() {
        let record = record(&[("loss/total", f64::NAN)]);
        assert_eq!(
            (progress_words(&record), pace_words(&record)),
            ("loss NaN".into(), String::new())
        );
    }

    #[test]
    fn what_is_not_finite_is_no_percentage() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let record = record(&[
                ("loss/total", 1.0),
                ("rate/floor", 0.5),
                ("rate/ceiling", 0.5),
                ("rate/position", value),
                ("speed/data_wait", value),
            ]);
            assert_eq!(progress_words(&record), "loss 1.0000 (floor 0.500, ceiling 0.500)");
            assert_eq!(pace_words(&record), "data-wait not finite");
        }
    }

    #[test]
    fn a_probe_is_named_in_words() {
        let line = other_line(&record(&[
            ("probe/knn_top1", 0.455),
            ("probe/effective_rank", 31.26),
            ("probe/pixels", 0.2),
            ("probe/logistic_top1", 0.5),
            ("probe/effective_dimension", 12.04),
            ("probe/segment_knn_miou", 0.333),
        ]));
        let expected = "step 120 epoch 1.2 k-NN 45.5%, effective rank 31.3, raw pixels 20.0%, \
                        logistic regression 50.0%, effective dimension 12.0, segmentation mIoU 33.3%";
        assert_eq!(line, expected);
    }

    #[test]
    fn seconds_are_a_clock() {
        for (seconds, expect) in
            [(0.0, "0:00:00"), (845.4, "0:14:05"), (90061.0, "25:01:01"), (f64::NAN, "0:00:00")]
        {
            assert_eq!(clock(seconds), expect, "{seconds}");
        }
    }
}
