//! Batches of crops, prepared ahead on the loader's own threads and delivered in order.
//!
//! The contents of a batch depend only on the dataset, the augmentation, the seed, and the
//! position: not on the number of threads, how far ahead they work, or where the run started.

mod crops;
mod eval;
mod health;
mod pipeline;
mod train;

pub use crops::Crops;
pub use eval::{EvalBatch, EvalLoader};
pub use train::{Batch, LoaderConfig, Position, TrainLoader, ViewPlan};

use crate::error::Error;

/// An image that could not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenImage {
    /// Index in the dataset.
    pub index: usize,
    /// Name in its source.
    pub name: String,
    /// The reason, in one line.
    pub reason: String,
}

impl BrokenImage {
    /// Image `index`, called `name`, with the error of reading it.
    pub(crate) fn new(index: usize, name: String, error: Error) -> Self {
        // The name is in its own field.
        let reason = error.reason();
        Self { index, name, reason }
    }
}
