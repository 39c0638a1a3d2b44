//! Determines which image is at which position of which batch.
//!
//! An epoch is a permutation of the data set that depends only on (seed, epoch). If several
//! sources are mixed by weight ([`SourcePart`]), each is traversed in its own passes, each of
//! which is a permutation; an epoch takes the next images of each source, in the configured
//! number, and shuffles them together.
//!
//! The batch of `n` images at step `s` uses positions `s * n .. (s + 1) * n` of the epoch; a
//! remainder at the end is dropped. It is cut into contiguous parts
//! ([`BatchGeometry::rows`]): first by micro-batch, then by process. The same images are therefore in
//! the same step, and in the same group of neighboring rows, whatever the number of processes and
//! micro-batches, and a run can continue with different numbers.

use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::BatchGeometry;
use crate::error::{Error, Result};
use crate::source::SourcePart;
use augment::rng::{Purpose, Rng};

/// The order of the data set in every epoch.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    len: usize,
    /// How many images an epoch takes from which part; a single part means all of them.
    parts: Vec<SourcePart>,
    geometry: BatchGeometry,
    /// The most recently requested permutation.
    cached: Mutex<Option<(u64, Arc<Epoch>)>>,
}

/// The images of an epoch in order.
#[derive(Debug)]
struct Epoch {
    images: Vec<u32>,
    /// Visit number of each image; empty if it equals the number of the epoch.
    visits: Vec<u32>,
    /// The first place that is final: a run that begins in the middle of an epoch needs no more.
    first: usize,
}

/// One image at one position of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Draw {
    /// Index in the data set.
    pub index: usize,
    /// How often the image was used before. Without weights, this is the number of the epoch; with
    /// weights, an image may occur more than once in an epoch, and (index, visit) distinguishes
    /// the occurrences.
    pub visit: u64,
}

impl Sampler {
    /// Creates a sampler over `len` images.
    ///
    /// # Errors
    /// Returns an error if a batch is larger than the data set, or if there are more than 2^32 - 1
    /// images.
    pub fn new(seed: u64, len: usize, geometry: BatchGeometry) -> Result<Self> {
        Self::of_parts(seed, vec![SourcePart { len, per_epoch: len }], geometry)
    }

    /// Creates a sampler over the images of all `parts`.
    ///
    /// # Errors
    /// As [`Sampler::new`], for the number of images in an epoch.
    pub fn of_parts(seed: u64, parts: Vec<SourcePart>, geometry: BatchGeometry) -> Result<Self> {
        let len = parts.iter().map(|part| part.per_epoch).sum();
        if geometry.batch_size() > len {
            return Err(Error::BatchTooLarge { batch: geometry.batch_size(), len });
        }
        if u32::try_from(len).is_err() {
            let problem = format!("at most {} images (got {len})", u32::MAX);
            return Err(Error::Config { key: "data.path", problem });
        }
        // If each image occurs once, parts make no difference: a mix without weights has the order
        // of a single source with the same number of images.
        let parts = match parts.iter().all(|part| part.len == part.per_epoch) {
            true => vec![SourcePart { len, per_epoch: len }],
            false => parts,
        };
        Ok(Self { seed, len, parts, geometry, cached: Mutex::new(None) })
    }

    /// Number of batches in an epoch; remaining images are dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.len / self.geometry.batch_size()) as u64
    }

    /// Returns the order of `epoch`, from place `first` on. The latest one is cached; it takes four
    /// bytes per image, or eight with weights.
    fn order(&self, epoch: u64, first: usize) -> Arc<Epoch> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, order)) = &*cached
            && *of == epoch
            && order.first <= first
        {
            return order.clone();
        }
        *cached = None; // not two of them in memory
        // Weights need the whole order, because they follow from the numbers at all places.
        let first = if self.parts.len() > 1 { 0 } else { first };
        let mut images: Vec<u32> = (0..self.len as u32).collect();
        Rng::new(self.seed, epoch, 0, Purpose::Shuffle).shuffle_from(&mut images, first);
        let visits = if self.parts.len() > 1 { self.fill(epoch, &mut images) } else { Vec::new() };
        let order = Arc::new(Epoch { images, visits, first });
        *cached = Some((epoch, order.clone()));
        order
    }

    /// Replaces shuffled numbers by images and returns the visit numbers: number `i` of a part is
    /// its image `epoch * per_epoch + i`, counted through all of its passes.
    fn fill(&self, epoch: u64, places: &mut [u32]) -> Vec<u32> {
        let (mut chosen, mut first) = (Vec::with_capacity(places.len()), 0);
        for (number, part) in (0..).zip(&self.parts) {
            let (len, count) = (part.len as u64, part.per_epoch as u64);
            let mut pass = (u64::MAX, Vec::new());
            for at in epoch * count..(epoch + 1) * count {
                if pass.0 != at / len {
                    let mut order: Vec<u32> = (0..part.len as u32).collect();
                    Rng::new(self.seed, at / len, number, Purpose::Mix).shuffle(&mut order);
                    pass = (at / len, order);
                }
                chosen.push((first + pass.1[(at % len) as usize], pass.0 as u32));
            }
            first += part.len as u32;
        }
        let visits = places.iter().map(|&place| chosen[place as usize].1).collect();
        places.iter_mut().for_each(|place| *place = chosen[*place as usize].0);
        visits
    }

    /// Returns the images of micro-batch `micro` of the batch at `step` of `epoch`, for this
    /// process. A step after the end of the epoch has none.
    pub fn micro_batch(&self, epoch: u64, step: u64, micro: usize) -> Vec<Draw> {
        let n = self.geometry.batch_size();
        let start = (step as usize).saturating_mul(n);
        if start.saturating_add(n) > self.len {
            return Vec::new();
        }
        let order = self.order(epoch, start);
        let rows = self.geometry.rows(micro);
        let visit = |place: usize| order.visits.get(place).map_or(epoch, |&visit| visit.into());
        (start + rows.start..start + rows.end)
            .map(|place| Draw { index: order.images[place] as usize, visit: visit(place) })
            .collect()
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
            let batch_size = world_size * accumulate * rows;
            let len = batch_size * steps + extra % batch_size;
            let whole = BatchGeometry::new(batch_size).unwrap();
            let sampler = Sampler::new(seed, len, whole).unwrap();
            let of_rank = |rank| {
                let geometry = whole.accumulated(accumulate).unwrap();
                Sampler::new(seed, len, geometry.of_process(rank, world_size).unwrap()).unwrap()
            };
            let ranks: Vec<Sampler> = (0..world_size).map(of_rank).collect();
            prop_assert_eq!(sampler.steps_per_epoch(), steps as u64);
            let mut seen = Vec::new();
            for step in 0..steps as u64 {
                let mut batch = Vec::new();
                for micro in 0..accumulate {
                    for rank in &ranks {
                        let part = rank.micro_batch(epoch, step, micro);
                        prop_assert_eq!(part.len(), rows);
                        batch.extend(part);
                    }
                }
                // One process without accumulation sees the same images in this step.
                let mut alone = sampler.micro_batch(epoch, step, 0);
                batch.sort_unstable();
                alone.sort_unstable();
                prop_assert_eq!(&batch, &alone);
                seen.extend(batch);
            }
            seen.sort_unstable();
            prop_assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "an image came twice");
            prop_assert_eq!(seen.len(), batch_size * steps);
            prop_assert!(seen.last().is_none_or(|last| last.index < len));
        }
    }

    fn batches_of(batch_size: usize) -> BatchGeometry {
        BatchGeometry::new(batch_size).unwrap()
    }

    fn epoch(sampler: &Sampler, epoch: u64) -> Vec<Draw> {
        let steps = 0..sampler.steps_per_epoch();
        steps.flat_map(|step| sampler.micro_batch(epoch, step, 0)).collect()
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let sampler = Sampler::new(3, 100, batches_of(10)).unwrap();
        let first = epoch(&sampler, 0);
        assert_ne!(first, epoch(&sampler, 1));
        assert_eq!(first, epoch(&sampler, 0));
        assert_ne!(first, epoch(&Sampler::new(4, 100, batches_of(10)).unwrap(), 0));
        let permutation = augment::rng::Rng::new(3, 0, 0, Purpose::Shuffle).permutation(100);
        assert!(first.iter().map(|draw| draw.index).eq(permutation));
        assert!(epoch(&sampler, 7).iter().all(|draw| draw.visit == 7));
        assert_eq!(sampler.micro_batch(0, 2, 0), first[20..30]);
        assert!(sampler.micro_batch(0, 10, 0).is_empty());
    }

    #[test]
    fn a_start_anywhere_finds_the_same_order() {
        let whole = epoch(&Sampler::new(3, 100, batches_of(10)).unwrap(), 4);
        let sampler = Sampler::new(3, 100, batches_of(10)).unwrap();
        for step in [7, 8, 9, 2, 5, 0, 9] {
            let start = step as usize * 10;
            assert_eq!(sampler.micro_batch(4, step, 0), whole[start..start + 10], "step {step}");
        }
    }

    #[test]
    fn a_mix_without_weights_is_one_source() {
        let parts = [30, 50, 20].map(|len| SourcePart { len, per_epoch: len }).to_vec();
        let mixed = Sampler::of_parts(3, parts, batches_of(10)).unwrap();
        assert_eq!(epoch(&mixed, 5), epoch(&Sampler::new(3, 100, batches_of(10)).unwrap(), 5));
    }

    proptest! {
        /// Each epoch takes its share of each part; a part's images are visited in turn, the same
        /// number of times but for one; no visit happens twice.
        #[test]
        fn weighted_parts_are_gone_through_in_turn(
            parts in proptest::collection::vec((1_usize..40, 0_usize..60), 2..5), seed: u64,
        ) {
            let parts: Vec<SourcePart> =
                parts.into_iter().map(|(len, per_epoch)| SourcePart { len, per_epoch }).collect();
            let total: usize = parts.iter().map(|part| part.per_epoch).sum();
            prop_assume!(total > 0 && parts.iter().any(|part| part.len != part.per_epoch));
            let sampler = Sampler::of_parts(seed, parts.clone(), batches_of(1)).unwrap();
            prop_assert_eq!(sampler.steps_per_epoch(), total as u64);
            let starts: Vec<usize> = parts.iter().scan(0, |start, part| {
                *start += part.len;
                Some(*start - part.len)
            }).collect();
            let of = |draw: &Draw| starts.partition_point(|&start| start <= draw.index) - 1;
            let mut all = Vec::new();
            for number in 0..6 {
                let draws = epoch(&sampler, number);
                for (number, part) in parts.iter().enumerate() {
                    let count = draws.iter().filter(|draw| of(draw) == number).count();
                    prop_assert_eq!(count, part.per_epoch);
                }
                all.extend(draws);
            }
            // Of all visits to a part, passes 0, 1, ... are whole but for the last.
            for (number, part) in parts.iter().enumerate() {
                let mut visits: Vec<(u64, usize)> = all.iter()
                    .filter(|draw| of(draw) == number)
                    .map(|draw| (draw.visit, draw.index - starts[number]))
                    .collect();
                visits.sort_unstable();
                let whole = visits.len() / part.len * part.len;
                for (i, &visit) in visits[..whole].iter().enumerate() {
                    prop_assert_eq!(visit, ((i / part.len) as u64, i % part.len));
                }
                prop_assert!(visits.windows(2).all(|pair| pair[0] < pair[1]));
            }
            let late = Sampler::of_parts(seed, parts, batches_of(1)).unwrap();
            prop_assert_eq!(epoch(&late, 5), epoch(&sampler, 5));
        }
    }

    #[test]
    fn a_batch_larger_than_the_data_is_named() {
        let message = Sampler::new(0, 30, batches_of(64)).unwrap_err().to_string();
        for part in ["64", "30", "lower train.batch_size"] {
            assert!(message.contains(part), "{message}");
        }
    }
}
