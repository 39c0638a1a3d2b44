//! The images of the probes. Their features are extracted once per step and shared.

use std::cell::OnceCell;

use eval::{ExtractOptions, FeatureSet, ImageSet};
use trainer::probe::{Moment, ProbeError};

/// A set of images, with the config key that names it.
pub struct Images {
    /// The config key.
    pub key: &'static str,
    /// The value of the key.
    pub path: String,
    /// The images.
    pub set: ImageSet,
}

/// The features of a network at one step. Probes that use the same images share them.
pub struct StepFeatures<'a> {
    images: &'a [Images],
    options: &'a ExtractOptions,
    moment: &'a Moment<'a>,
    found: Vec<OnceCell<FeatureSet>>,
}

impl<'a> StepFeatures<'a> {
    /// Creates an empty cache: features are extracted when they are first requested.
    pub fn new(images: &'a [Images], options: &'a ExtractOptions, moment: &'a Moment<'a>) -> Self {
        let found = images.iter().map(|_| OnceCell::new()).collect();
        Self { images, options, moment, found }
    }

    /// Returns the features of set `number`, and extracts them if needed.
    ///
    /// # Errors
    /// Returns an error if no image can be read or a process fails.
    pub fn of(&self, number: usize) -> Result<&FeatureSet, ProbeError> {
        let (images, found) = (&self.images[number], &self.found[number]);
        if let Some(features) = found.get() {
            return Ok(features);
        }
        let processes = self.moment.processes.collective();
        let features = images.set.features(self.moment.backbone, self.options, processes);
        let features =
            features.map_err(|error| format!("{}: {}", images.key, base::error_chain(&error)))?;
        Ok(found.get_or_init(|| features))
    }

    /// Returns a sentence for each extracted set with images that could not be read.
    pub fn broken(&self) -> Vec<String> {
        let sentence = |(images, found): (&Images, &OnceCell<FeatureSet>)| {
            let broken = &found.get()?.broken;
            let (key, path, total) = (images.key, &images.path, images.set.len());
            let about = format!("{key}: {} of {total} images in {path}", broken.len());
            left_out(&about, broken)
        };
        self.images.iter().zip(&self.found).filter_map(sentence).collect()
    }
}

/// Returns a sentence about the broken images of a set; `None` if there are none.
pub fn left_out(about: &str, broken: &[data::loader::BrokenImage]) -> Option<String> {
    let first = broken.first()?;
    let (name, reason) = (&first.name, &first.reason);
    Some(format!("{about} could not be read and will be skipped; the first is {name}: {reason}"))
}
