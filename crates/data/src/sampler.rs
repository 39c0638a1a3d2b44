//! Determines which image goes where in which batch.
//!
//! An epoch is a permutation of the dataset that depends only on (seed, epoch). If several sources
//! are mixed by weight ([`SourcePart`]), each source has its own sequence of passes, and each pass
//! is a permutation of its images. An epoch takes the configured number of images from each source,
//! continuing where the previous epoch stopped, and shuffles them together.
//!
//! The order of an epoch of up to 65,536 images is shuffled as a whole and cached. For longer
//! epochs, the image at each position is computed on demand, so neither the memory nor the time to
//! start in the middle of an epoch grows with the number of images.
//!
//! The batch of `n` images at step `s` uses positions `s * n .. (s + 1) * n` of the epoch; a
//! remainder at the end is dropped. It is split into contiguous parts ([`BatchGeometry::rows`]),
//! first by micro-batch, then by process. A step therefore has the same images, in the same groups
//! of neighboring rows, whatever the number of processes and micro-batches, and a run can be
//! resumed with different numbers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::batch::BatchGeometry;
use crate::error::{Error, Result};
use crate::permutation::Permutation;
use crate::source::SourcePart;
use augment::rng::{Purpose, Rng};

/// Largest number of images for which the order is kept as a table. Changing this constant changes
/// the order of the images.
const LARGEST_TABLE: usize = 1 << 16;

/// The order of the dataset in every epoch.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    len: usize,
    /// How many images an epoch takes from each part. A single part means that an epoch takes every
    /// image once.
    parts: Vec<SourcePart>,
    geometry: BatchGeometry,
    /// Whether the order is kept as tables rather than computed on demand.
    tables: bool,
    /// The most recently requested epoch, if it is a table.
    cached: Mutex<Option<(u64, Arc<Vec<Draw>>)>>,
}

/// One image at one position of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Draw {
    /// Index in the dataset.
    pub index: usize,
    /// How often the image has been used before. Without weights, this is the number of the epoch;
    /// with weights, an image may occur more than once in an epoch, and (index, visit) identifies
    /// each occurrence.
    pub visit: u64,
}

impl Sampler {
    /// Creates a sampler over `len` images.
    ///
    /// # Errors
    /// Returns an error if a batch is larger than the dataset, or if there are more than 2^32 - 1
    /// images.
    pub fn new(seed: u64, len: usize, geometry: BatchGeometry) -> Result<Self> {
        Self::of_parts(seed, vec![SourcePart { len, per_epoch: len }], geometry)
    }

    /// Creates a sampler over the images of all `parts`.
    ///
    /// # Errors
    /// Returns an error if a batch is larger than an epoch, or if an epoch or a part has more than
    /// 2^32 - 1 images.
    pub fn of_parts(seed: u64, parts: Vec<SourcePart>, geometry: BatchGeometry) -> Result<Self> {
        let len = parts.iter().map(|part| part.per_epoch).sum();
        if geometry.batch_size() > len {
            return Err(Error::BatchTooLarge { batch: geometry.batch_size(), len });
        }
        // If each image occurs once per epoch, the parts are joined, so a mix without weights has
        // the same order as a single source with the same number of images.
        let parts = match parts.iter().all(|part| part.len == part.per_epoch) {
            true => vec![SourcePart { len, per_epoch: len }],
            false => parts,
        };
        let most = parts.iter().map(|part| part.len).fold(len, usize::max);
        if u32::try_from(most).is_err() {
            let problem = format!("must have at most {} images (got {most})", u32::MAX);
            return Err(Error::Config { key: "data.path", problem });
        }
        let tables = most <= LARGEST_TABLE;
        Ok(Self { seed, len, parts, geometry, tables, cached: Mutex::new(None) })
    }

    /// Returns the number of batches in an epoch; remaining images are dropped.
    pub fn steps_per_epoch(&self) -> u64 {
        (self.len / self.geometry.batch_size()) as u64
    }

    /// Returns the images at the given positions of `epoch`. If the order is kept as tables, the
    /// whole epoch is computed once and cached.
    fn draws(&self, epoch: u64, places: Range<usize>) -> Vec<Draw> {
        if !self.tables {
            return self.find(epoch, places);
        }
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let all = match &*cached {
            Some((of, all)) if *of == epoch => all.clone(),
            _ => Arc::new(self.find(epoch, 0..self.len)),
        };
        *cached = Some((epoch, all.clone()));
        all[places].to_vec()
    }

    /// Computes the images at the given positions of `epoch`, without the cache.
    fn find(&self, epoch: u64, places: Range<usize>) -> Vec<Draw> {
        let mut numbers: Vec<u32> = places.map(|place| place as u32).collect();
        self.order(epoch, 0, Purpose::Shuffle, self.len).look_up(&mut numbers);
        let mut passes = HashMap::new();
        let draw = |number| self.draw(epoch, number as usize, &mut passes);
        numbers.into_iter().map(draw).collect()
    }

    /// Returns image `number` of an epoch before shuffling. The i-th image that an epoch takes from
    /// a part is number `epoch * per_epoch + i` in the sequence of all passes through that part.
    /// `passes` caches the order of each pass, by part and visit.
    fn draw(
        &self,
        epoch: u64,
        mut number: usize,
        passes: &mut HashMap<(usize, u64), Order>,
    ) -> Draw {
        if self.parts.len() == 1 {
            return Draw { index: number, visit: epoch };
        }
        let (mut chosen, mut first) = (0, 0);
        while number >= self.parts[chosen].per_epoch {
            number -= self.parts[chosen].per_epoch;
            first += self.parts[chosen].len;
            chosen += 1;
        }
        let SourcePart { len, per_epoch } = self.parts[chosen];
        let at = epoch * per_epoch as u64 + number as u64;
        let (visit, place) = (at / len as u64, at % len as u64);
        let new = || self.order(visit, chosen as u64, Purpose::Mix, len);
        let mut image = [place as u32];
        passes.entry((chosen, visit)).or_insert_with(new).look_up(&mut image);
        Draw { index: first + image[0] as usize, visit }
    }

    /// Returns a random order of `0..len`.
    fn order(&self, epoch: u64, sample: u64, purpose: Purpose, len: usize) -> Order {
        let mut rng = Rng::new(self.seed, epoch, sample, purpose);
        match self.tables {
            true => Order::Table(rng.permutation(len)),
            false => Order::Computed(Box::new(Permutation::new(len as u32, &mut rng))),
        }
    }

    /// Returns the images of micro-batch `micro` of the batch at `step` of `epoch`, for this
    /// process; empty if the step is beyond the end of the epoch.
    pub fn micro_batch(&self, epoch: u64, step: u64, micro: usize) -> Vec<Draw> {
        let n = self.geometry.batch_size();
        let start = (step as usize).saturating_mul(n);
        if start.saturating_add(n) > self.len {
            return Vec::new();
        }
        let rows = self.geometry.rows(micro);
        self.draws(epoch, start + rows.start..start + rows.end)
    }
}

/// A random permutation, as a table or computed on demand.
enum Order {
    Table(Vec<usize>),
    Computed(Box<Permutation>),
}

impl Order {
    /// Replaces each position with the number at that position.
    fn look_up(&self, places: &mut [u32]) {
        match self {
            Self::Table(table) => places.iter_mut().for_each(|x| *x = table[*x as usize] as u32),
            Self::Computed(permutation) => permutation.look_up(places),
        }
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
            tables: bool,
        ) {
            let batch_size = world_size * accumulate * rows;
            let len = batch_size * steps + extra % batch_size;
            let whole = BatchGeometry::new(batch_size).unwrap();
            let sampler = Sampler { tables, ..Sampler::new(seed, len, whole).unwrap() };
            let of_rank = |rank| {
                let geometry = whole.accumulated(accumulate).unwrap();
                let geometry = geometry.of_process(rank, world_size).unwrap();
                Sampler { tables, ..Sampler::new(seed, len, geometry).unwrap() }
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
        for tables in [true, false] {
            let sampler = || Sampler { tables, ..Sampler::new(3, 100, batches_of(10)).unwrap() };
            let (whole, sampler) = (epoch(&sampler(), 4), sampler());
            for step in [7, 8, 9, 2, 5, 0, 9] {
                let start = step as usize * 10;
                assert_eq!(
                    sampler.micro_batch(4, step, 0),
                    whole[start..start + 10],
                    "step {step}"
                );
            }
        }
    }

    /// Neither an epoch nor a part of it may become a table that is too long.
    #[test]
    fn only_long_epochs_are_computed() {
        let tables = |parts: &[(usize, usize)]| {
            let parts = parts.iter().map(|&(len, per_epoch)| SourcePart { len, per_epoch });
            Sampler::of_parts(0, parts.collect(), batches_of(1)).unwrap().tables
        };
        assert!(tables(&[(65_536, 65_536)]));
        assert!(!tables(&[(65_537, 65_537)]));
        assert!(tables(&[(40_000, 50), (40_000, 65_000)]));
        for long in [(40_000, 40_000), (40_000, 30_000), (70_000, 10)] {
            assert!(!tables(&[long, (40_000, 40_000)]), "{long:?}");
        }
    }

    /// The numbers come from a separate implementation and must never change.
    #[test]
    fn the_order_of_many_images_is_that_of_every_other_version() {
        let batch = |sampler: &Sampler, epoch, step| -> Vec<(usize, u64)> {
            let draws = sampler.micro_batch(epoch, step, 0);
            draws.into_iter().map(|draw| (draw.index, draw.visit)).collect()
        };
        let sampler = Sampler::new(7, 10_000_000, batches_of(4)).unwrap();
        let first = [1571075, 2775129, 4984234, 7940371].map(|index| (index, 0));
        assert_eq!(batch(&sampler, 0, 0), first);
        let middle = [9526180, 8709804, 2792675, 6362401].map(|index| (index, 3));
        assert_eq!(batch(&sampler, 3, 1_250_000), middle);
        let parts = [(60_000, 30_000), (10, 50_000)];
        let parts = parts.map(|(len, per_epoch)| SourcePart { len, per_epoch }).to_vec();
        let mixed = Sampler::of_parts(7, parts, batches_of(4)).unwrap();
        let first = [(60_008, 7863), (9719, 0), (49_734, 0), (60_004, 5342)];
        assert_eq!(batch(&mixed, 1, 0), first);
    }

    #[test]
    fn a_mix_without_weights_is_one_source() {
        let parts = [30, 50, 20].map(|len| SourcePart { len, per_epoch: len }).to_vec();
        let mixed = Sampler::of_parts(3, parts, batches_of(10)).unwrap();
        assert_eq!(epoch(&mixed, 5), epoch(&Sampler::new(3, 100, batches_of(10)).unwrap(), 5));
    }

    proptest! {
        /// Each epoch takes its share of each part, the images of a part are used equally often,
        /// give or take one, and no visit occurs twice.
        #[test]
        fn weighted_parts_are_gone_through_in_turn(
            parts in proptest::collection::vec((1_usize..40, 0_usize..60), 2..5),
            seed: u64,
            tables: bool,
        ) {
            let parts: Vec<SourcePart> =
                parts.into_iter().map(|(len, per_epoch)| SourcePart { len, per_epoch }).collect();
            let total: usize = parts.iter().map(|part| part.per_epoch).sum();
            prop_assume!(total > 0 && parts.iter().any(|part| part.len != part.per_epoch));
            let sampler = || {
                let sampler = Sampler::of_parts(seed, parts.clone(), batches_of(1)).unwrap();
                Sampler { tables, ..sampler }
            };
            let (sampler, late) = (sampler(), sampler());
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
            // All passes through a part are complete, except possibly the last.
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
