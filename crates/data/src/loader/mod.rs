//! Batches of crops, prepared ahead on the loader's own threads and delivered in order.
//!
//! What a batch holds depends on the data set, the augmentation, the seed and its position, and
//! on nothing else: not on the number of threads, nor on how far ahead they work, nor on where
//! the run was begun.

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
    /// Index in the data set.
    pub index: usize,
    /// Name in its source.
    pub name: String,
    /// Why, in one line.
    pub reason: String,
}

impl BrokenImage {
    /// Image `index`, called `name`, with what its reading returned.
    pub(crate) fn new(index: usize, name: String, error: Error) -> Self {
        // The name stands in a field of its own.
        let reason = error.reason();
        Self { index, name, reason }
    }
}
