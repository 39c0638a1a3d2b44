//! How the batch of an optimizer step is divided over processes and micro-batches.

use std::ops::Range;

use crate::error::{Error, Result};

/// The batch of an optimizer step, as one of its processes sees it.
///
/// The batch has [`batch_size`](Self::batch_size) images over all processes. It is split into
/// `accumulate * world_size` contiguous parts of equal size, first by micro-batch, then by process.
/// The constructors guarantee that there is no remainder.
///
/// ```
/// use data::batch::BatchGeometry;
///
/// # fn main() -> data::Result<()> {
/// let geometry = BatchGeometry::new(64)?.accumulated(2)?.of_process(3, 8)?;
/// assert_eq!(geometry.micro_batch_size(), 4);
/// assert_eq!(geometry.rows(1), 44..48);
/// assert!(geometry.accumulated(3).is_err());
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchGeometry {
    batch_size: usize,
    accumulate: usize,
    rank: usize,
    world_size: usize,
}

impl BatchGeometry {
    /// Creates the geometry of a batch of `batch_size` images in a single process and micro-batch.
    ///
    /// # Errors
    /// Returns an error if `batch_size` is 0.
    pub fn new(batch_size: usize) -> Result<Self> {
        Self { batch_size, accumulate: 1, rank: 0, world_size: 1 }.validated()
    }

    /// Returns the same batch split into `accumulate` micro-batches.
    ///
    /// # Errors
    /// Returns an error if `accumulate` is 0 or the batch cannot be divided.
    pub fn accumulated(self, accumulate: usize) -> Result<Self> {
        Self { accumulate, ..self }.validated()
    }

    /// Returns the same batch as process `rank` of `world_size` sees it.
    ///
    /// # Errors
    /// Returns an error if `rank` is not below `world_size` or the batch cannot be divided.
    pub fn of_process(self, rank: usize, world_size: usize) -> Result<Self> {
        Self { rank, world_size, ..self }.validated()
    }

    fn validated(self) -> Result<Self> {
        let Self { batch_size, accumulate, rank, world_size } = self;
        let problem = |key, problem| Err(Error::Config { key, problem });
        for (key, count) in [("train.batch_size", batch_size), ("train.accumulate", accumulate)] {
            if count == 0 {
                return problem(key, "must be at least 1 (got 0)".into());
            }
        }
        if rank >= world_size {
            let text = format!("rank {rank} is out of range for a world size of {world_size}");
            return problem("rank", text);
        }
        let parts = accumulate.saturating_mul(world_size);
        if !batch_size.is_multiple_of(parts) {
            let text = format!(
                "must be a multiple of {parts} = {accumulate} micro-batches x {world_size} processes \
                 (got {batch_size})"
            );
            return problem("train.batch_size", text);
        }
        Ok(self)
    }

    /// Returns the number of images per optimizer step, over all processes and micro-batches.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Returns the number of micro-batches per optimizer step.
    pub fn accumulate(&self) -> usize {
        self.accumulate
    }

    /// Returns the rank of this process, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Returns the number of processes.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Returns the number of images that one process handles in one micro-batch.
    pub fn micro_batch_size(&self) -> usize {
        self.batch_size / (self.accumulate * self.world_size)
    }

    /// Returns the rows of the batch that this process handles in micro-batch `micro`; the range is
    /// empty if there is no such micro-batch.
    pub fn rows(&self, micro: usize) -> Range<usize> {
        let part = micro.saturating_mul(self.world_size).saturating_add(self.rank);
        let edge = |part: usize| part.saturating_mul(self.micro_batch_size()).min(self.batch_size);
        edge(part)..edge(part.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_that_cannot_be_divided_is_refused() {
        let of = |batch, accumulate, rank, world_size| {
            BatchGeometry::new(batch)?.accumulated(accumulate)?.of_process(rank, world_size)
        };
        for (refused, named) in [
            (of(0, 1, 0, 1), "train.batch_size"),
            (of(8, 0, 0, 1), "train.accumulate"),
            (of(8, 1, 2, 2), "rank 2 is out of range for a world size of 2"),
            (of(8, 1, 0, 0), "rank 0 is out of range for a world size of 0"),
            (of(8, 3, 0, 1), "3 micro-batches"),
            (of(8, 2, 0, 3), "6 = 2 micro-batches x 3 processes (got 8)"),
            (of(8, usize::MAX, 0, 1), "train.batch_size"),
        ] {
            let message = refused.unwrap_err().to_string();
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn the_parts_of_a_batch_follow_each_other() {
        let mut rows = Vec::new();
        for micro in 0..2 {
            for rank in 0..3 {
                let geometry = BatchGeometry::new(24).unwrap().accumulated(2).unwrap();
                let geometry = geometry.of_process(rank, 3).unwrap();
                assert_eq!(geometry.rows(micro).len(), geometry.micro_batch_size());
                rows.extend(geometry.rows(micro));
                assert!(geometry.rows(2).is_empty());
            }
        }
        assert!(rows.into_iter().eq(0..24));
    }
}
