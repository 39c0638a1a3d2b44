//! What all protocols have in common.

use eval::record::Record;

use crate::error::Result;
use crate::observer::Observer;
use crate::subject::Subject;

/// An evaluation with its settings and its images.
pub trait Protocol {
    /// Returns the name of the protocol, which is the command after `simdino eval`.
    fn name(&self) -> &'static str;

    /// Checks the settings, and that the images and their annotations are there, as far as that is
    /// possible without a network. Call it before a measurement, which may take hours.
    ///
    /// # Errors
    /// Returns an error that names the setting or the file.
    fn check(&self) -> Result<()>;

    /// Measures a network, the same network untrained unless the settings skip it, and the
    /// baselines without a network.
    ///
    /// # Errors
    /// Returns an error if the images cannot be read or do not fit the network, or if a score is
    /// not finite.
    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>>;
}
