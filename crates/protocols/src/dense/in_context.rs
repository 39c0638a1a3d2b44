//! In-context segmentation with a memory of patches, without training.

use std::path::PathBuf;

use eval::record::Record;
use eval::segmentation::in_context::{InContextConfig, Memory};
use eval::segmentation::{DenseNetwork, Metered};

use super::images::{DenseImages, whole_patches};
use super::kept::both;
use super::scored::{Context, Scored};
use crate::error::Result;
use crate::observer::{Counter, Observer};
use crate::protocol::Protocol;
use crate::subject::Subject;

/// In-context segmentation: the labels of the most similar patches of a memory vote for the class
/// of each pixel.
///
/// # Source
/// Hummingbird, *Towards In-context Scene Understanding*.
#[derive(Debug, Clone)]
pub struct InContext {
    /// The images.
    pub images: DenseImages,
    /// Settings; the side of the images is rounded to whole patches of the network.
    pub config: InContextConfig,
    /// Folder that keeps patch features for the next evaluation; `None` = they are not kept.
    pub features: Option<PathBuf>,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
    /// Number of test images in the picture that [`Observer::draw`] receives; 0 = no picture.
    pub shown: usize,
}

impl InContext {
    /// Name of the protocol.
    pub const NAME: &'static str = "in-context";

    /// Returns the protocol with the published settings.
    pub fn published(images: DenseImages) -> Self {
        let config = InContextConfig::default();
        Self { images, config, features: None, skip_untrained: false, shown: 0 }
    }
}

impl Protocol for InContext {
    fn name(&self) -> &'static str {
        Self::NAME
    }

    fn check(&self) -> Result<()> {
        self.images.check()
    }

    fn measure(&self, subject: &Subject, observer: &dyn Observer) -> Result<Vec<Record>> {
        let sets = self.images.open(subject, observer)?;
        let about =
            Context { images: &self.images, sets: &sets, subject, observer, shown: self.shown };
        let mut config = self.config.clone();
        config.side = whole_patches(subject, config.side);
        let measure = |network: DenseNetwork<'_>, meter: Option<&Metered<'_>>| {
            measured(&about, network, &config, meter)
        };
        let folder = self.features.as_deref();
        let (trained, untrained) = both(&about, folder, self.skip_untrained, measure)?;
        about.draw("", &trained);
        untrained.iter().for_each(|scored| about.draw(", untrained", scored));
        let mut record = about.record(self.name(), &config, &trained, untrained.as_ref())?;
        (record.crop, record.mask_size) = (Some(config.side), config.mask.side());
        Ok(vec![record])
    }
}

fn measured(
    about: &Context<'_>,
    network: DenseNetwork<'_>,
    config: &InContextConfig,
    meter: Option<&Metered<'_>>,
) -> Result<Scored> {
    let [train, test] = about.images.data(about.sets);
    let mut counter =
        Counter::new(about.observer, "training images added to memory", train.set.len());
    let memory =
        Memory::new(network, &train, config, &mut |done, total| counter.set_of(done, total))?;
    counter.finish();
    let mut scored = about.score(&memory, &test, config.mask, meter)?;
    scored.chosen.push(("patches_in_memory", memory.len().into()));
    Ok(scored.trained_on(memory.images, &memory.broken, about.observer))
}
