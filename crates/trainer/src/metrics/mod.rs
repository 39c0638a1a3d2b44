//! What a run says about itself while it goes on, and the files that keep it.
//!
//! A [`Record`] is a step and named numbers; a [`Sink`] keeps records. This module does not decide
//! what is recorded or when, and does not print.

mod crc32c;
mod csv;
mod event;
mod jsonl;
mod tensorboard;

pub use csv::write_csv;
pub use jsonl::{JsonlSink, read_jsonl};
pub use tensorboard::TensorBoardSink;

use crate::error::Result;

/// Named numbers of one step.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    /// Optimizer steps done.
    pub step: u64,
    /// Passes over the data done.
    pub epoch: f64,
    /// Names such as `loss/total`, with their values.
    pub values: Vec<(String, f64)>,
}

impl Record {
    /// The value of this name.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(key, _)| key == name).map(|(_, value)| *value)
    }
}

/// Keeps records.
pub trait Sink {
    /// Takes one record.
    ///
    /// # Errors
    /// If it cannot be kept.
    fn write(&mut self, record: &Record) -> Result<()>;

    /// Brings everything taken so far to where it can be read.
    ///
    /// # Errors
    /// If it cannot be brought there.
    fn flush(&mut self) -> Result<()>;
}
