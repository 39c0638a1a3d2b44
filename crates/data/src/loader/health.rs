//! Decides when a dataset has too many broken images.

use std::collections::HashSet;

use super::BrokenImage;
use crate::error::{Error, Result};

/// The fraction of broken images is checked from this number of images on.
const MIN_READ: usize = 50;

/// Counts broken images in the order of delivery, so the decision does not depend on threads.
pub(super) struct Health {
    max_bad_fraction: f64,
    read: usize,
    broken: usize,
    first: Option<BrokenImage>,
    reported: HashSet<usize>,
}

impl Health {
    pub(super) fn new(max_bad_fraction: f64) -> Self {
        Self { max_bad_fraction, read: 0, broken: 0, first: None, reported: HashSet::new() }
    }

    /// Counts a batch; returns its broken images that were not reported before.
    pub(super) fn note(
        &mut self,
        read: usize,
        broken: Vec<BrokenImage>,
    ) -> Result<Vec<BrokenImage>> {
        self.read += read;
        self.broken += broken.len();
        if self.first.is_none() {
            self.first = broken.first().cloned();
        }
        if let Some(first) = &self.first
            && self.read >= MIN_READ
            && self.broken as f64 > self.max_bad_fraction * self.read as f64
        {
            return Err(Error::TooManyBroken {
                broken: self.broken,
                read: self.read,
                max_bad_fraction: self.max_bad_fraction,
                first: first.name.clone(),
                reason: first.reason.clone(),
            });
        }
        let mut fresh = broken;
        fresh.retain(|image| self.reported.insert(image.index));
        Ok(fresh)
    }
}
