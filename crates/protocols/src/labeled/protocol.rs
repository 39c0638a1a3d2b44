//! What protocols on labeled images have in common.

use std::collections::BTreeSet;

use eval::record::Record;
use eval::store::ImageFeature;

use super::images::LabeledImages;
use super::task::LabeledTask;
use crate::error::Result;
use crate::observer::Observer;
use crate::protocol::Protocol;
use crate::subject::Subject;

/// A protocol that learns classes from labeled images. Several of them can share a [`LabeledTask`],
/// so that features are extracted only once.
pub trait LabeledProtocol {
    /// Returns the name of the protocol.
    fn name(&self) -> &'static str;

    /// Returns the features that the protocol needs.
    fn features(&self) -> BTreeSet<ImageFeature>;

    /// Checks that the settings are in range.
    ///
    /// # Errors
    /// Returns an error that names the first setting that is not.
    fn check(&self) -> Result<()>;

    /// Checks that the network fits the settings, before features are extracted.
    ///
    /// # Errors
    /// Returns an error if it does not.
    fn fits(&self, _subject: &Subject) -> Result<()> {
        Ok(())
    }

    /// Measures the network of a task and its baselines.
    ///
    /// # Errors
    /// Returns an error if labels or features cannot be used.
    fn record(&self, task: &LabeledTask<'_>) -> Result<Record>;
}

/// A [`LabeledProtocol`] with its images.
#[derive(Debug, Clone)]
pub struct OnImages<P> {
    /// The images.
    pub images: LabeledImages,
    /// The protocol.
    pub protocol: P,
}

impl<P: LabeledProtocol> Protocol for OnImages<P> {
    fn name(&self) -> &'static str {
        self.protocol.name()
    }

    /// Checks the settings. Images and their labels are checked when the measurement begins.
    fn check(&self) -> Result<()> {
        self.images.check()?;
        self.protocol.check()
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        self.check()?;
        self.protocol.fits(subject)?;
        let features = self.protocol.features();
        let task = LabeledTask::open(&self.images, subject, &features, observer)?;
        Ok(vec![self.protocol.record(&task)?])
    }
}
