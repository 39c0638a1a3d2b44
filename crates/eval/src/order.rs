//! The order in which training sees images.

use std::collections::BTreeMap;
use std::sync::Mutex;

use augment::rng::{Purpose, Rng};
use data::loader::BrokenImage;

use crate::error::{Error, Result};

/// The [`Purpose::Choice`] number for the order of images.
const ORDER: u32 = 706;

/// Returns the order of `count` images in an epoch.
pub(crate) fn permutation(seed: u64, epoch: u64, count: usize) -> Vec<usize> {
    Rng::new(seed, epoch, 0, Purpose::Choice(ORDER)).permutation(count)
}

/// Images in a new random order in each epoch, skipping those that cannot be read.
pub(crate) struct Order<'a> {
    indices: &'a [usize],
    seed: u64,
    broken: Mutex<BTreeMap<usize, BrokenImage>>,
}

/// The epoch and the index of a drawn image.
pub(crate) struct Drawn {
    pub(crate) epoch: u64,
    pub(crate) index: usize,
}

impl<'a> Order<'a> {
    pub(crate) fn new(indices: &'a [usize], seed: u64) -> Self {
        Self { indices, seed, broken: Mutex::default() }
    }

    /// Loads the image at position `place` of a training, or the next readable one.
    pub(crate) fn draw<T>(
        &self,
        place: usize,
        load: impl Fn(usize) -> data::Result<T>,
        name: impl Fn(usize) -> String,
    ) -> Result<(T, Drawn)> {
        let count = self.indices.len();
        let (epoch, place) = ((place / count.max(1)) as u64, place % count.max(1));
        let order = permutation(self.seed, epoch, count);
        for attempt in 0..count {
            let index = self.indices[order[(place + attempt) % count]];
            match load(index) {
                Ok(sample) => return Ok((sample, Drawn { epoch, index })),
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

    /// Returns the images that could not be read.
    pub(crate) fn broken(self) -> Vec<BrokenImage> {
        self.broken.into_inner().unwrap_or_default().into_values().collect()
    }
}
