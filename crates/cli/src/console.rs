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

/// Two lines: the bar with the pace, then the training progress. Each fits most terminals.
const TEMPLATE: &str = "{pos}/{len} {bar:20} {prefix}\n{wide_msg}";

/// Prints the result of a command on standard output. A closed pipe, such as that of `head`, is not
/// an error.
///
/// # Errors
/// Returns an error if the output cannot be written for another reason, such as a full disk.
pub fn answer(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// Prints a message on standard error, which is not part of the result.
pub fn note(sentence: &str) {
    // If standard error is closed, there is nowhere left to report that.
    let _ = writeln!(io::stderr(), "simdino: {}", printable(sentence));
}

/// Prints a warning for each skipped image of a set. An image that several networks or protocols
/// skip is named only once. `set` keeps images of the same name in different sets apart.
pub fn name_skipped(set: &str, images: &[BrokenImage]) {
    static NAMED: Mutex<BTreeSet<(String, String)>> = Mutex::new(BTreeSet::new());
    let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
    for image in images {
        if named.insert((set.to_owned(), image.name.clone())) {
            note(&format!("warning: skipped {}: {}", image.name, image.reason));
        }
    }
}

/// The terminal output of a training run, with an optional log file.
#[derive(Debug, Default)]
pub struct Console {
    bar: Option<ProgressBar>,
    silent: bool,
    total_steps: Option<u64>,
    log: Option<File>,
}

impl Console {
    /// Creates a console without a progress bar.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a console that writes only to its log file, for processes other than the first.
    pub fn silent() -> Self {
        Self { silent: true, ..Self::default() }
    }

    /// Also appends every line to a file from now on.
    ///
    /// # Errors
    /// Returns an error if the file cannot be opened.
    pub fn log_to(&mut self, path: &Path) -> Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        self.log = Some(file.context(|| format!("{}: cannot open the log file", path.display()))?);
        Ok(())
    }

    /// Starts showing the progress of a run that has completed `start` of `total_steps` steps.
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

    /// Prints a message above the progress bar.
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
            // The log is best effort: everything a run needs is in files whose errors are reported.
            let _ = writeln!(file, "{line}");
        }
    }

    /// Prints a warning.
    pub fn warn(&self, sentence: &str) {
        self.note(&format!("warning: {sentence}"));
    }

    /// Shows a record: a training step in the bar if there is one, anything else on its own line.
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

    /// Stops updating the bar and leaves it on the screen.
    pub fn finish(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|bar| !bar.is_finished()) {
            bar.abandon();
            // The bar leaves the cursor at the end of its line.
            let _ = writeln!(io::stderr());
        }
    }
}

/// Formats the training progress: the loss, its terms, and the position of the coding rate, as far
/// as the record has them.
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

/// Formats the learning rate, speed, memory, and remaining time, as far as the record has them.
fn pace_words(record: &Record) -> String {
    let get = |name: &str| record.get(name);
    let memory = get("memory/device_gb").or_else(|| get("memory/process_gb"));
    let parts = [
        get("optim/lr")
            .map(|lr| if lr == 0.0 { "lr 0".to_owned() } else { format!("lr {lr:.1e}") }),
        get("speed/img_s").map(|speed| format!("img/s {speed:.0}")),
        get("speed/data_wait").map(|wait| format!("data-wait {}", percent(wait, 0))),
        memory.map(|gb| format!("mem {gb:.1} GB")),
        get("time/eta_s").map(|eta| format!("eta {}", clock(eta))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// Formats a record that is not of a training step, such as that of a probe.
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

/// Formats seconds as `h:mm:ss`. Values that are not valid durations become `0:00:00`.
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
    fn a_rate_of_zero_is_zero() {
        assert_eq!(pace_words(&record(&[("optim/lr", 0.0)])), "lr 0");
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
