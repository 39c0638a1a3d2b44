//! Metrics that a run reports while it trains, and the files that store them.
//!
//! A [`Record`] is a step with named values; a [`Sink`] stores records. This module does not
//! decide what is recorded or when, and does not print.

mod crc32c;
mod csv;
mod event;
mod jsonl;
mod tensorboard;

pub use csv::write_csv;
pub use jsonl::{JsonlSink, read_jsonl};
pub use tensorboard::TensorBoardSink;

use crate::error::Result;

/// Named values of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Number of optimizer steps completed.
    pub step: u64,
    /// Number of epochs completed.
    pub epoch: f64,
    /// Names such as `loss/total`, with their values.
    pub values: Vec<(String, f64)>,
}

impl Record {
    /// Returns the value with this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

/// Stores records.
pub trait Sink {
    /// Stores one record.
    ///
    /// # Errors
    /// Returns an error if it cannot be stored.
    fn write(&mut self, record: &Record) -> Result<()>;

    /// Flushes everything stored so far to disk, so that it survives a power failure.
    ///
    /// # Errors
    /// Returns an error if flushing fails.
    fn sync(&mut self) -> Result<()>;
}
