//! The order in which training sees images.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use augment::rng::{Purpose, Rng};
use data::loader::BrokenImage;

use crate::error::{Error, Result};

/// The [`Purpose::Choice`] number for the order of images.
const ORDER: u32 = 706;

/// An endless sequence of images, in which every pass through all images is a new permutation.
#[derive(Debug)]
pub(crate) struct Passes {
    seed: u64,
    purpose: Purpose,
    count: usize,
    pass: Option<usize>,
    order: Vec<usize>,
}

impl Passes {
    /// Creates the sequence of `count` images for one of the [`Purpose`]s of permutations.
    pub(crate) fn new(seed: u64, purpose: Purpose, count: usize) -> Self {
        Self { seed, purpose, count, pass: None, order: Vec::new() }
    }

    /// Creates the sequence in which dense tasks see `count` images.
    pub(crate) fn dense(seed: u64, count: usize) -> Self {
        Self::new(seed, Purpose::Choice(ORDER), count)
    }

    /// Returns the image at a place of the sequence, from 0 to the number of images - 1. Fast if
    /// most places are in the same pass as the one before.
    pub(crate) fn image(&mut self, place: usize) -> usize {
        let (pass, place) = (place / self.count, place % self.count);
        if self.pass != Some(pass) {
            let mut rng = Rng::new(self.seed, pass as u64, 0, self.purpose);
            (self.order, self.pass) = (rng.permutation(self.count), Some(pass));
        }
        self.order[place]
    }
}

/// Images in a new random order in each epoch, skipping those that cannot be read.
pub(crate) struct Order<'a> {
    indices: &'a [usize],
    passes: Mutex<Passes>,
    broken: Mutex<BTreeMap<usize, BrokenImage>>,
}

/// The epoch and the index of a drawn image.
pub(crate) struct Drawn {
    pub(crate) epoch: u64,
    pub(crate) index: usize,
}

impl<'a> Order<'a> {
    pub(crate) fn new(indices: &'a [usize], seed: u64) -> Self {
        let passes = Mutex::new(Passes::dense(seed, indices.len()));
        Self { indices, passes, broken: Mutex::default() }
    }

    /// Loads the image at position `place` of a training, or the next readable one.
    pub(crate) fn draw<T>(
        &self,
        place: usize,
        load: impl Fn(usize) -> data::Result<T>,
        name: impl Fn(usize) -> String,
    ) -> Result<(T, Drawn)> {
        let count = self.indices.len();
        for attempt in 0..count {
            // An epoch's last images are followed by its first ones.
            let start = place / count * count;
            let index = self.index(start + (place + attempt) % count);
            match load(index) {
                Ok(sample) => {
                    return Ok((sample, Drawn { epoch: (place / count) as u64, index }));
                }
                Err(error) => {
                    let image = BrokenImage { index, name: name(index), reason: error.chain() };
                    if let Ok(mut broken) = self.broken.lock() {
                        broken.insert(index, image);
                    }
                }
            }
        }
        let broken = self.broken.lock().ok().and_then(|broken| broken.values().next().cloned());
        let first = broken.map(|b| format!("{}: {}", b.name, b.reason)).unwrap_or_default();
        Err(Error::NoImages { asked: count, first })
    }

    fn index(&self, place: usize) -> usize {
        self.indices[self.passes.lock().unwrap_or_else(PoisonError::into_inner).image(place)]
    }

    /// Returns the images that could not be read.
    pub(crate) fn broken(self) -> Vec<BrokenImage> {
        self.broken.into_inner().unwrap_or_default().into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_is_a_permutation_and_broken_images_are_replaced_by_the_next() {
        let indices = [10, 11, 12, 13, 14, 15, 16];
        let order = Order::new(&indices, 5);
        let load = |index: usize| match index {
            12 => Err(data::Error::Index { index, len: 7 }),
            _ => Ok(index),
        };
        // Threads may be in two epochs at once, so places do not come in order.
        for place in [0, 6, 7, 5, 8, 20, 13, 14, 3] {
            let (epoch, first) = (place / 7, place % 7);
            let rng = &mut Rng::new(5, epoch as u64, 0, Purpose::Choice(ORDER));
            let images: Vec<usize> = rng.permutation(7).into_iter().map(|i| indices[i]).collect();
            let next = images[first..].iter().chain(&images).find(|&&index| index != 12);
            let (sample, at) = order.draw(place, load, |index| index.to_string()).unwrap();
            assert_eq!(Some(&sample), next, "{place}");
            assert_eq!((at.epoch, at.index), (epoch as u64, sample));
        }
        assert!(order.broken().iter().all(|image| image.index == 12));
        let nothing = Order::new(&[], 5);
        assert!(nothing.draw(0, load, |index| index.to_string()).is_err());
    }
}
