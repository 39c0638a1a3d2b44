//! Decides when a dataset has too many broken images.

use std::collections::HashSet;

use super::BrokenImage;
use crate::error::{Error, Result};

/// Minimum number of images read before the fraction of broken images is checked.
const MIN_READ: usize = 50;

/// Counts broken images in the order of delivery, so the decision does not depend on the number of
/// threads.
pub(super) struct Health {
    max_bad_fraction: f64,
    read: usize,
    broken: usize,
    first: Option<BrokenImage>,
    reported: HashSet<usize>,
    /// Newly found broken images of batches for which an error was returned.
    undelivered: Vec<BrokenImage>,
}

impl Health {
    pub(super) fn new(max_bad_fraction: f64) -> Self {
        let (reported, undelivered) = (HashSet::new(), Vec::new());
        Self { max_bad_fraction, read: 0, broken: 0, first: None, reported, undelivered }
    }

    /// Counts a batch, and returns it with those of its broken images that were not reported
    /// before. If an error is returned instead, these images are kept for
    /// [`Self::take_undelivered`].
    pub(super) fn pass<B>(
        &mut self,
        batch: Result<B>,
        read: usize,
        broken: Vec<BrokenImage>,
    ) -> Result<(B, Vec<BrokenImage>)> {
        let fresh = self.note(read, broken);
        match batch.and_then(|batch| self.check().map(|()| batch)) {
            Ok(batch) => Ok((batch, fresh)),
            Err(error) => {
                self.undelivered.extend(fresh);
                Err(error)
            }
        }
    }

    /// Returns the broken images of batches for which an error was returned since the last call.
    pub(super) fn take_undelivered(&mut self) -> Vec<BrokenImage> {
        std::mem::take(&mut self.undelivered)
    }

    fn note(&mut self, read: usize, broken: Vec<BrokenImage>) -> Vec<BrokenImage> {
        self.read += read;
        self.broken += broken.len();
        if self.first.is_none() {
            self.first = broken.first().cloned();
        }
        let mut fresh = broken;
        fresh.retain(|image| self.reported.insert(image.index));
        fresh
    }

    /// Returns an error if too many of the images read so far are broken.
    fn check(&self) -> Result<()> {
        match &self.first {
            Some(first)
                if self.read >= MIN_READ
                    && self.broken as f64 > self.max_bad_fraction * self.read as f64 =>
            {
                Err(Error::TooManyBroken {
                    broken: self.broken,
                    files: self.reported.len(),
                    read: self.read,
                    max_bad_fraction: self.max_bad_fraction,
                    first: first.name.clone(),
                    reason: first.reason.clone(),
                })
            }
            _ => Ok(()),
        }
    }
}
