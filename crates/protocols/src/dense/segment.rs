//! Semantic segmentation with a linear head.

use eval::record::Record;
use eval::segmentation::linear::{LinearConfig, LinearSegmenter, Recipe, StateFile, train};
use eval::segmentation::{DenseData, DenseNetwork, MaskSize, Metered};
use eval::store::Network;

use super::images::{DenseImages, dense_network};
use super::scored::{Context, Scored};
use crate::error::Result;
use crate::observer::{Counter, Observer};
use crate::protocol::Protocol;
use crate::subject::Subject;

/// Trains a linear head on frozen patch features.
///
/// An interrupted training continues if [`Subject::heads`] is set.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The images.
    pub images: DenseImages,
    /// Settings of training and testing, usually those of a recipe ([`LinearConfig::of`]). The crop
    /// is rounded to whole patches of the network, and other lengths are scaled with it.
    pub config: LinearConfig,
    /// Distance from one test window to the next, in pixels; `None` = that of the config.
    pub stride: Option<u32>,
    /// Size at which masks are compared.
    pub mask: MaskSize,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
    /// Number of test images in the picture that [`Observer::draw`] receives; 0 = no picture.
    pub shown: usize,
}

impl Segment {
    /// Name of the protocol.
    pub const NAME: &'static str = "segment";

    /// Returns the protocol with the published settings of a recipe.
    pub fn published(images: DenseImages, recipe: Recipe) -> Self {
        let (config, mask) = (LinearConfig::of(recipe), MaskSize::Original);
        Self { images, config, stride: None, mask, skip_untrained: false, shown: 0 }
    }

    /// Returns the settings for a network.
    fn config_for(&self, network: &DenseNetwork<'_>) -> LinearConfig {
        let crop = network.whole_patches(self.config.crop);
        let mut config = self.config.clone().with_crop(crop);
        config.stride = self.stride.unwrap_or(config.stride);
        config
    }

    fn scored(
        &self,
        about: &Context<'_>,
        (network, fingerprint): (DenseNetwork<'_>, &str),
        config: &LinearConfig,
        meter: Option<&Metered<'_>>,
    ) -> Result<Scored> {
        let [train_data, test] = self.images.data(about.sets);
        let state = state(about.subject, fingerprint, &network, &train_data, config)?;
        let total = usize::try_from(config.iterations).unwrap_or(usize::MAX);
        let mut counter = Counter::new(about.observer, "iterations", total);
        let mut progress = |done: u64, _| counter.set(usize::try_from(done).unwrap_or(usize::MAX));
        let (head, report) = train(network, &train_data, config, state.as_ref(), &mut progress)?;
        counter.finish();
        if report.resumed_at > 0 {
            let at = report.resumed_at;
            let name = about.subject.name_of(fingerprint);
            about.observer.note(&format!("{name}: training of the head resumed at iteration {at}"));
        }
        let segmenter = LinearSegmenter { network, head, config: config.clone() };
        let scored = about.score(&segmenter, &test, self.mask, meter)?;
        Ok(scored.trained_on(report.images, &report.broken, about.observer))
    }
}

/// Returns the file that the state of the training is kept in, if there is a folder for it.
fn state(
    subject: &Subject,
    fingerprint: &str,
    network: &DenseNetwork<'_>,
    data: &DenseData<'_>,
    config: &LinearConfig,
) -> Result<Option<StateFile>> {
    let file = |folder| StateFile::in_folder(folder, fingerprint, network, data, config);
    Ok(subject.heads.as_deref().map(file).transpose()?)
}

impl Protocol for Segment {
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
        let meter = subject.metered(&subject.weights.backbone);
        let own = dense_network(subject, &meter, self.config.layers);
        let config = self.config_for(&own);
        let trained = self.scored(&about, (own, &subject.fingerprint), &config, Some(&meter))?;
        let random = (!self.skip_untrained).then(|| subject.untrained()).transpose()?;
        let untrained = random.as_ref().map(|random| {
            let Network { backbone, fingerprint } = random.network();
            let network = dense_network(subject, backbone, config.layers);
            self.scored(&about, (network, fingerprint), &config, None)
        });
        let untrained = untrained.transpose()?;
        about.draw("", &trained);
        untrained.iter().for_each(|scored| about.draw(", untrained", scored));
        let mut record = about.record(self.name(), &config, &trained, untrained.as_ref())?;
        (record.crop, record.mask_size) = (Some(config.crop), self.mask.side());
        record.set("mask", serde_json::to_value(self.mask)?);
        if config.cached {
            record.note("features of the training images were computed once, without augmentation");
        }
        Ok(vec![record])
    }
}
