//! Segmentation by k-NN and logistic regression on patches, without training.

use std::path::PathBuf;

use eval::record::Record;
use eval::segmentation::knn::{KnnSettings, PatchConfig, PatchSegmenter, TrainPatches};
use eval::segmentation::{DenseNetwork, MaskSize, Metered};
use serde_json::{Map, Value, json};

use super::images::{DenseImages, whole_patches};
use super::kept::both;
use super::scored::{Context, Scored};
use crate::error::Result;
use crate::observer::{Counter, Observer};
use crate::protocol::Protocol;
use crate::subject::Subject;

/// A classifier of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchClassifier {
    /// Pixels of the nearest patches vote.
    Knn,
    /// Logistic regression on the most frequent class of a patch.
    Logistic,
}

impl PatchClassifier {
    /// Returns the name of the protocol with this classifier alone, which is that of its record.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Knn => "segment-knn",
            Self::Logistic => "segment-logistic",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Knn => "k-NN",
            Self::Logistic => "logistic regression",
        }
    }
}

/// Segmentation by classifiers of patches. Each gives a record.
///
/// # Source
/// CAPI, *Cluster and Predict Latent Patches for Improved Masked Image Modeling*.
#[derive(Debug, Clone)]
pub struct SegmentPatches {
    /// The images.
    pub images: DenseImages,
    /// The classifiers.
    pub classifiers: Vec<PatchClassifier>,
    /// Settings; the side of the images is rounded to whole patches of the network. Its mask size
    /// has no effect.
    pub config: PatchConfig,
    /// Size at which masks are compared; `None` = the side of the images.
    pub mask: Option<MaskSize>,
    /// Folder that keeps patch features for the next evaluation; `None` = they are not kept.
    pub features: Option<PathBuf>,
    /// Do not measure the same network untrained.
    pub skip_untrained: bool,
    /// Number of test images in the picture that [`Observer::draw`] receives; 0 = no picture.
    pub shown: usize,
}

impl SegmentPatches {
    /// Name of the protocol.
    pub const NAME: &'static str = "segment-knn";

    /// Returns the protocol with the published settings and both classifiers.
    pub fn published(images: DenseImages) -> Self {
        Self {
            images,
            classifiers: vec![PatchClassifier::Knn, PatchClassifier::Logistic],
            config: PatchConfig::default(),
            mask: None,
            features: None,
            skip_untrained: false,
            shown: 0,
        }
    }

    /// Scores each classifier, in order.
    fn measured(
        &self,
        about: &Context<'_>,
        network: DenseNetwork<'_>,
        config: &PatchConfig,
        meter: Option<&Metered<'_>>,
    ) -> Result<Vec<Scored>> {
        let [train, test] = self.images.data(about.sets);
        let observer = about.observer;
        let mut counter = Counter::new(observer, "training images embedded", train.set.len());
        let patches = TrainPatches::new(network, &train, config, &mut |done, total| {
            counter.set_of(done, total);
        })?;
        counter.finish();
        let scored = |kind: &PatchClassifier| -> Result<Scored> {
            let (segmenter, mut chosen) = fitted(&patches, *kind)?;
            chosen.push(("patches_in_memory", patches.len().into()));
            let scored = about.score(&segmenter, &test, config.mask, meter)?;
            Ok(Scored { chosen, ..scored.trained_on(patches.images, &patches.broken, observer) })
        };
        self.classifiers.iter().map(scored).collect()
    }
}

impl Protocol for SegmentPatches {
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
        config.mask = self.mask.unwrap_or(MaskSize::Square(config.side));
        let measure = |network: DenseNetwork<'_>, meter: Option<&Metered<'_>>| {
            self.measured(&about, network, &config, meter)
        };
        let folder = self.features.as_deref();
        let (trained, untrained) = both(&about, folder, self.skip_untrained, measure)?;
        let untrained = untrained.unwrap_or_default();
        for (name, scored) in [("", &trained), (", untrained", &untrained)] {
            for (kind, scored) in self.classifiers.iter().zip(scored) {
                about.draw(&format!("{name}, {}", kind.label()), scored);
            }
        }
        let each = self.classifiers.iter().zip(&trained).enumerate();
        let record = |(i, (kind, trained)): (usize, (&PatchClassifier, &Scored))| {
            let mut record = about.record(kind.protocol(), &config, trained, untrained.get(i))?;
            (record.crop, record.mask_size) = (Some(config.side), config.mask.side());
            Ok(record)
        };
        each.map(record).collect()
    }
}

/// Fits a classifier, and returns it with the chosen settings and the scores of all candidates.
fn fitted<'a>(
    patches: &'a TrainPatches<'a>,
    kind: PatchClassifier,
) -> Result<(PatchSegmenter<'a>, Vec<(&'static str, Value)>)> {
    let (segmenter, name, candidates): (_, _, Map<String, Value>) = match kind {
        PatchClassifier::Knn => {
            let (segmenter, candidates) = patches.knn()?;
            let named = candidates.iter().map(|one| {
                let KnnSettings { k, similarity } = one.settings;
                let similarity = json!(similarity);
                let name = format!("k {k} {}", similarity.as_str().unwrap_or_default());
                (name, json!(one.miou))
            });
            (segmenter, "knn", named.collect())
        }
        PatchClassifier::Logistic => {
            let (segmenter, candidates) = patches.logistic()?;
            let named =
                candidates.iter().map(|one| (format!("{:.1e}", one.settings), json!(one.miou)));
            (segmenter, "c", named.collect())
        }
    };
    let chosen = vec![
        (name, segmenter.settings().in_record()),
        ("miou_of_candidates", Value::Object(candidates)),
    ];
    Ok((segmenter, chosen))
}
