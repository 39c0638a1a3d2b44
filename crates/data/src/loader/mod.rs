//! Batches of crops, prepared ahead of time on the loader's own threads and delivered in order.
//!
//! The contents of a batch depend only on the dataset, the augmentation, the seed, and the
//! position. They do not depend on the number of threads, how far ahead these work, or where the
//! run was started.

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
    /// Creates a record of image `index`, called `name`, from the error that occurred while reading
    /// it.
    pub(crate) fn new(index: usize, name: String, error: Error) -> Self {
        // The name is already in its own field.
        let reason = error.reason();
        Self { index, name, reason }
    }
}
