//! Warnings derived from the metrics of a run, in plain words, each given once.
//!
//! [`objectives::health::CollapseDetector`] detects collapse; this module covers runs that
//! continue, but slower or worse than necessary.

use crate::metrics::Record;

/// Fraction of a step's time that may be spent waiting for data.
const DATA_WAIT: f64 = 0.25;
/// Largest ceiling of the weighted coding rate that raises no concern; above it, the rate can
/// outweigh the similarity, which is at most 1.
const CEILING: f64 = 1.0;
/// Position between floor and ceiling above which the coding rate dominates.
const AT_CEILING: f64 = 0.95;
/// Similarity below which views hardly agree.
const DISAGREEMENT: f64 = 0.3;
/// Fraction of the training after which views that hardly agree are worth a warning.
const LATE: f64 = 0.2;
/// Fraction of the held position below which the coding rate is losing to the similarity.
const FALLEN: f64 = 0.5;
/// Similarity above which such a loss leads to a collapse.
const AGREEMENT: f64 = 0.9;
/// Number of consecutive lines that must show a condition before it is reported.
const LINES: u32 = 3;

/// A condition that may indicate a problem.
struct Condition {
    shows: fn(&Record, f64) -> bool,
    words: fn(&Record) -> String,
    in_a_row: u32,
    said: bool,
}

/// Checks each metrics line.
pub(crate) struct TrainingWarnings([Condition; 4]);

impl Default for TrainingWarnings {
    fn default() -> Self {
        let condition = |shows, words| Condition { shows, words, in_a_row: 0, said: false };
        Self([
            condition(waits_for_data, data_words),
            condition(outweighs, outweighs_words),
            condition(falls, falls_words),
            condition(needs_retries, retry_words),
        ])
    }
}

impl TrainingWarnings {
    /// Returns the warnings after a metrics line; `progress` is the fraction of the training that
    /// is done.
    pub(crate) fn check(&mut self, record: &Record, progress: f64) -> Vec<String> {
        let mut said = Vec::new();
        for condition in &mut self.0 {
            let shows = (condition.shows)(record, progress);
            condition.in_a_row = if shows { condition.in_a_row + 1 } else { 0 };
            if condition.in_a_row >= LINES && !condition.said {
                condition.said = true;
                said.push((condition.words)(record));
            }
        }
        said
    }
}

fn value(record: &Record, name: &str) -> f64 {
    record.get(name).unwrap_or(f64::NAN) // all comparisons with NaN are false
}

fn waits_for_data(record: &Record, _: f64) -> bool {
    value(record, "speed/data_wait") > DATA_WAIT
}

fn data_words(record: &Record) -> String {
    format!(
        "steps spend {:.0}% of their time waiting for images: raise data.workers, pack the \
         images into shards, or set data.cache",
        100.0 * value(record, "speed/data_wait")
    )
}

fn outweighs(record: &Record, progress: f64) -> bool {
    progress > LATE
        && value(record, "rate/ceiling") > CEILING
        && value(record, "rate/position") > AT_CEILING
        && value(record, "loss/compression") < DISAGREEMENT
}

fn outweighs_words(record: &Record) -> String {
    format!(
        "the coding rate outweighs the similarity of views, which is only {:.2}: the rate can \
         reach {:.2} here, compared with 0.45 in the paper; set simdino.coeff_rule to held",
        value(record, "loss/compression"),
        value(record, "rate/ceiling")
    )
}

fn falls(record: &Record, _: f64) -> bool {
    value(record, "rate/position") < FALLEN * value(record, "rate/path")
        && value(record, "loss/compression") > AGREEMENT
}

fn falls_words(record: &Record) -> String {
    format!(
        "the coding rate is {:.0}% of the way from its floor to its ceiling, but should be held at \
         {:.0}%: the features are about to collapse; lower optim.base_lr, or raise \
         optim.warmup_epochs",
        100.0 * value(record, "rate/position"),
        100.0 * value(record, "rate/path")
    )
}

fn needs_retries(record: &Record, _: f64) -> bool {
    value(record, "rate/retries") > 0.0
}

fn retry_words(_: &Record) -> String {
    "the matrix of the coding rate is repeatedly not positive definite in single precision, so it \
     is factorized in double precision: set simdino.precision to fp64, or raise simdino.eps"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(values: &[(&str, f64)]) -> Record {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Record { step: 10, epoch: 1.0, values }
    }

    /// Returns the number of warnings after each of five equal lines.
    fn said(values: &[(&str, f64)], progress: f64) -> Vec<usize> {
        let (mut warnings, line) = (TrainingWarnings::default(), record(values));
        (0..5).map(|_| warnings.check(&line, progress).len()).collect()
    }

    #[test]
    fn each_thing_is_said_once_when_it_has_lasted() {
        assert_eq!(said(&[("speed/data_wait", 0.4)], 0.0), [0, 0, 1, 0, 0]);
        assert_eq!(said(&[("speed/data_wait", 0.1)], 0.0), [0; 5]);
        assert_eq!(said(&[("rate/retries", 2.0)], 0.0), [0, 0, 1, 0, 0]);
        assert_eq!(said(&[], 0.5), [0; 5], "what is not measured says nothing");
    }

    #[test]
    fn a_held_position_that_is_lost_is_named_early() {
        let line = [("rate/path", 0.8), ("rate/position", 0.1), ("loss/compression", 0.95)];
        assert_eq!(said(&line, 0.001), [0, 0, 1, 0, 0]);
        let apart = [("rate/path", 0.8), ("rate/position", 0.3), ("loss/compression", 0.5)];
        assert_eq!(said(&apart, 0.001), [0; 5], "a network that has yet to spread");
        let free = [("rate/position", 0.01), ("loss/compression", 0.95)];
        assert_eq!(said(&free, 0.001), [0; 5], "nothing is held");
    }

    #[test]
    fn a_rate_that_outweighs_is_named_when_it_is_late() {
        let line = [("rate/ceiling", 1.39), ("rate/position", 0.99), ("loss/compression", 0.2)];
        assert_eq!(said(&line, 0.5), [0, 0, 1, 0, 0]);
        assert_eq!(said(&line, 0.1), [0; 5]);
        let paper = [("rate/ceiling", 0.45), ("rate/position", 0.99), ("loss/compression", 0.2)];
        assert_eq!(said(&paper, 0.5), [0; 5]);
        let mut warnings = TrainingWarnings::default();
        let words: Vec<String> = (0..3).flat_map(|_| warnings.check(&record(&line), 0.5)).collect();
        assert!(words[0].contains("only 0.20") && words[0].contains("can reach 1.39"), "{words:?}");
    }
}
