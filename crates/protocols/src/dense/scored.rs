//! Scores of a segmentation, and their conversion to a record.

use data::loader::BrokenImage;
use eval::record::Record;
use eval::segmentation::{
    DenseData, MaskSize, Metered, SegmentationScore, Segmenter, Shown, evaluate, predicted_row,
    truth_rows,
};
use eval::spectrum::Spread;
use serde::Serialize;
use serde_json::Value;

use super::images::{DenseImages, DenseSets};
use crate::error::Result;
use crate::notes::{SAME_IMAGES, unreadable};
use crate::observer::{Counter, Observer};
use crate::subject::Subject;

/// Scores of one network.
pub(super) struct Scored {
    pub(super) score: SegmentationScore,
    /// Numbers of images that were trained on and scored.
    pub(super) images: [usize; 2],
    /// Sentences about images that were skipped.
    pub(super) notes: Vec<String>,
    /// What the protocol chose, by name.
    pub(super) chosen: Vec<(&'static str, Value)>,
    /// Images for a picture, if one was requested.
    pub(super) shown: Vec<Shown>,
    /// Of the patch features of the test images.
    pub(super) spread: Option<Spread>,
}

/// Tells which images were skipped, and returns a sentence about them; `None` if there are none.
pub(crate) fn skipped(
    role: &str,
    broken: &[BrokenImage],
    observer: &dyn Observer,
) -> Option<String> {
    observer.skipped(role, broken);
    unreadable(role, broken)
}

/// What all networks of a measurement share.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) images: &'a DenseImages,
    pub(super) sets: &'a DenseSets,
    pub(super) subject: &'a Subject,
    pub(super) observer: &'a dyn Observer,
    /// Number of images in a picture of predictions.
    pub(super) shown: usize,
}

impl Context<'_> {
    /// Scores a segmenter on the test set, and measures the spread of its features with the
    /// `meter`. Keeps the first predictions for a picture. The result has no training images yet,
    /// and a note if test images were skipped.
    pub(super) fn score(
        &self,
        segmenter: &dyn Segmenter,
        test: &DenseData<'_>,
        mask: MaskSize,
        meter: Option<&Metered<'_>>,
    ) -> Result<Scored> {
        meter.iter().for_each(|meter| meter.restart());
        let total = test.limit.unwrap_or(test.set.len()).min(test.set.len());
        let mut counter = Counter::new(self.observer, "test images segmented", total);
        let mut shown = Vec::new();
        let evaluated = evaluate(test, segmenter, mask, &mut |_, sample, predicted| {
            counter.add();
            if shown.len() < self.shown {
                let (image, truth) = (sample.image.clone(), sample.labels.clone());
                shown.push(Shown { image, truth, predicted: predicted.to_vec() });
            }
            Ok(())
        })?;
        counter.finish();
        Ok(Scored {
            score: evaluated.confusion.score()?,
            images: [0, evaluated.images],
            notes: skipped("test", &evaluated.broken, self.observer).into_iter().collect(),
            chosen: Vec::new(),
            shown,
            spread: meter.map(|meter| meter.spread()).transpose()?.flatten(),
        })
    }

    /// Adds predictions of this network to the picture, if one was requested. `name` is appended to
    /// the label, to tell several rows of a network apart.
    pub(super) fn draw(&self, name: &str, scored: &Scored) {
        if scored.shown.is_empty() {
            return;
        }
        let label = format!("{}{name}", self.subject.path.display());
        let predicted = predicted_row(&label, &scored.shown);
        self.observer.draw(&|| Ok(truth_rows(&scored.shown)), predicted);
    }

    /// Creates a record of the scores of a network and of the same network untrained.
    pub(super) fn record(
        &self,
        protocol: &str,
        settings: &impl Serialize,
        trained: &Scored,
        untrained: Option<&Scored>,
    ) -> Result<Record> {
        let mut record = self.subject.record(protocol);
        if let Value::Object(settings) = serde_json::to_value(settings)? {
            settings.into_iter().for_each(|(name, value)| record.set(&name, value));
        }
        record.set("labels", self.images.meaning.clone());
        let [train, test] = self.images.data(self.sets);
        record.limits([train.limit, test.limit]);
        record.data =
            vec![train.used("train", trained.images[0]), test.used("test", trained.images[1])];
        let name = |class| self.sets.test.rules().name(class);
        trained.score.named(name).iter().for_each(|(name, value)| record.score(name, *value));
        if let Some(untrained) = untrained {
            let scores = untrained.score.named(name);
            scores.iter().for_each(|(name, value)| record.baseline("untrained", name, *value));
        }
        for (name, value) in &trained.chosen {
            record.chosen.insert((*name).to_owned(), value.clone());
        }
        trained.spread.into_iter().for_each(|spread| record.spread(spread));
        trained.notes.iter().for_each(|text| record.note(text));
        if self.sets.train.fingerprint() == self.sets.test.fingerprint() {
            record.note(SAME_IMAGES);
        }
        let per_class = trained.score.per_class.iter().enumerate();
        let empty: Vec<String> = per_class
            .filter(|(_, class)| class.pixels == 0)
            .map(|(class, _)| name(class))
            .collect();
        if !empty.is_empty() {
            let empty = empty.join(", ");
            record.note(&format!("classes without a pixel in the test images: {empty}"));
        }
        Ok(record)
    }
}

impl Scored {
    /// Adds the number of training images, and a note if some of them were skipped.
    pub(super) fn trained_on(
        mut self,
        images: usize,
        broken: &[BrokenImage],
        observer: &dyn Observer,
    ) -> Self {
        self.images[0] = images;
        self.notes.splice(..0, skipped("training", broken, observer));
        self
    }
}
