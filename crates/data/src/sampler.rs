//! Which image stands at which place of which batch.
//!
//! An epoch is a permutation of the data set that depends on (seed, epoch) only. The global batch
//! of `n` images at step `s` uses its positions `s * n .. (s + 1) * n`; what is left at the end is
//! dropped. Micro-batch `a` of `A` takes the contiguous rows `a * n / A .. (a + 1) * n / A`, and
//! rank `r` of `W` takes the rows `r, r + W, ...` of those. So the same images meet in the same
//! step, whatever the number of processes, and a run can go on with another number of them.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::rng::{Purpose, Rng};

/// The order of the data set in every epoch.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    len: usize,
    global_batch: usize,
    /// The permutation that was asked for last.
    cached: Mutex<Option<(u64, Arc<[u32]>)>>,
}

/// The share of a process in a global batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Micro-batches in a global batch.
    pub accumulate: usize,
    /// This process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world_size: usize,
}

impl Sampler {
    /// A sampler over `len` images in batches of `global_batch`.
    ///
    /// # Errors
    /// The batch is empty or larger than the data set, or there are more than 2^32 - 1 images.
    pub fn new(seed: u64, len: usize, global_batch: usize) -> Result<Self> {
        if global_batch == 0 {
            return Err(Error::Config {
                key: "train.batch_size",
                problem: "must be at least 1 (got 0)".into(),
            });
        }
        if global_batch > len {
            return Err(Error::BatchTooLarge { batch: global_batch, len });
        }
        if u32::try_from(len).is_err() {
            let problem = format!("at most {} images (got {len})", u32::MAX);
            return Err(Error::Config { key: "data.path", problem });
        }
        Ok(Self { seed, len, global_batch, cached: Mutex::new(None) })
    }

    /// Global batches in an epoch; the rest of the images is left out of it.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.len / self.global_batch) as u64
    }

    /// The permutation of `epoch`. The latest one is kept; it takes four bytes an image.
    pub fn order(&self, epoch: u64) -> Arc<[u32]> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        match &*cached {
            Some((of, order)) if *of == epoch => order.clone(),
            _ => {
                let mut rng = Rng::new(self.seed, epoch, 0, Purpose::Shuffle);
                *cached = None; // not two of them in memory
                let mut order: Arc<[u32]> = (0..self.len as u32).collect();
                if let Some(order) = Arc::get_mut(&mut order) {
                    rng.shuffle(order);
                }
                *cached = Some((epoch, order.clone()));
                order
            }
        }
    }

    /// The image at `position` of `epoch`; positions go around at the end of the data set.
    pub fn sample(&self, epoch: u64, position: usize) -> usize {
        self.order(epoch)[position % self.len] as usize
    }

    /// Images of micro-batch `micro` of the batch at `step` of `epoch`, for one process.
    /// A step beyond the epoch's end has none.
    pub fn micro_batch(&self, epoch: u64, step: u64, micro: usize, share: Share) -> Vec<usize> {
        let order = self.order(epoch);
        let first = (step as usize).saturating_mul(self.global_batch);
        let Some(batch) = order.get(first..first.saturating_add(self.global_batch)) else {
            return Vec::new();
        };
        let (n, parts) = (self.global_batch, share.accumulate.max(1));
        let rows = &batch[(micro * n / parts).min(n)..((micro + 1) * n / parts).min(n)];
        let mine = rows.iter().skip(share.rank).step_by(share.world_size.max(1));
        mine.map(|&sample| sample as usize).collect()
    }
}

impl Share {
    /// Checks that every process gets equally many images of every micro-batch.
    ///
    /// # Errors
    /// A count is 0, the rank is not below the world size, or `global_batch` cannot be divided.
    pub fn validate(&self, global_batch: usize) -> Result<()> {
        let problem = |key, problem| Err(Error::Config { key, problem });
        let Self { accumulate, rank, world_size } = *self;
        if accumulate == 0 {
            return problem("train.accumulate", "must be at least 1 (got 0)".into());
        }
        if rank >= world_size {
            let text = format!("rank {rank} of a world of {world_size} processes does not exist");
            return problem("rank", text);
        }
        if !global_batch.is_multiple_of(accumulate * world_size) {
            let text = format!(
                "must be a multiple of {} = {accumulate} micro-batches x {world_size} processes \
                 (got {global_batch})",
                accumulate * world_size
            );
            return problem("train.batch_size", text);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranks_and_micro_batches_cover_an_epoch_without_overlap(
            seed: u64,
            epoch in 0_u64..1000,
            world_size in 1_usize..6,
            accumulate in 1_usize..5,
            rows in 1_usize..4,
            extra in 0_usize..50,
            steps in 1_usize..4,
        ) {
            let global_batch = world_size * accumulate * rows;
            let len = global_batch * steps + extra % global_batch;
            let sampler = Sampler::new(seed, len, global_batch).unwrap();
            prop_assert_eq!(sampler.steps_per_epoch(), steps as u64);
            let mut seen = Vec::new();
            for step in 0..steps as u64 {
                let mut batch = Vec::new();
                for micro in 0..accumulate {
                    for rank in 0..world_size {
                        let share = Share { accumulate, rank, world_size };
                        share.validate(global_batch).unwrap();
                        let part = sampler.micro_batch(epoch, step, micro, share);
                        prop_assert_eq!(part.len(), rows);
                        batch.extend(part);
                    }
                }
                // One process without accumulation sees the same images in this step.
                let whole = Share { accumulate: 1, rank: 0, world_size: 1 };
                let mut alone = sampler.micro_batch(epoch, step, 0, whole);
                batch.sort_unstable();
                alone.sort_unstable();
                prop_assert_eq!(&batch, &alone);
                seen.extend(batch);
            }
            seen.sort_unstable();
            prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "an image came twice");
            prop_assert_eq!(seen.len(), global_batch * steps);
            prop_assert!(seen.last().is_none_or(|&last| last < len));
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let sampler = Sampler::new(3, 100, 10).unwrap();
        let first = sampler.order(0);
        assert_ne!(first, sampler.order(1));
        assert_eq!(first, sampler.order(0));
        assert_ne!(first, Sampler::new(4, 100, 10).unwrap().order(0));
        assert_eq!(sampler.sample(0, 7), first[7] as usize);
        let permutation = crate::rng::Rng::new(3, 0, 0, Purpose::Shuffle).permutation(100);
        assert!(first.iter().map(|&sample| sample as usize).eq(permutation));
        let share = Share { accumulate: 1, rank: 0, world_size: 1 };
        let third: Vec<usize> = first[20..30].iter().map(|&sample| sample as usize).collect();
        assert_eq!(sampler.micro_batch(0, 2, 0, share), third);
        assert!(sampler.micro_batch(0, 10, 0, share).is_empty());
    }

    #[test]
    fn impossible_batches_are_named() {
        let message = Sampler::new(0, 30, 64).unwrap_err().to_string();
        for part in ["64", "30", "lower train.batch_size"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(Sampler::new(0, 30, 0).is_err());
        let share = |accumulate, rank, world_size| Share { accumulate, rank, world_size };
        for (bad, batch) in
            [(share(0, 0, 1), 8), (share(1, 2, 2), 8), (share(1, 0, 0), 8), (share(3, 0, 2), 8)]
        {
            assert!(bad.validate(batch).is_err(), "{bad:?}");
        }
        share(2, 1, 4).validate(8).unwrap();
    }
}
