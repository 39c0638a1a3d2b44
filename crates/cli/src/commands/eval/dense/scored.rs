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

use crate::commands::eval::networks::Opened;
use crate::commands::eval::sheet::Sheet;
use crate::console::{name_skipped, progress};
use crate::failure::Result;

use super::subject::{DenseSets, DenseSubject};

/// Number of images in a picture of predictions.
const SHOWN: usize = 4;

/// Scores of one network.
pub struct Scored {
    pub score: SegmentationScore,
    /// Numbers of images that were trained on and scored.
    pub images: [usize; 2],
    /// Sentences about images that were skipped.
    pub notes: Vec<String>,
    /// What the protocol chose, by name.
    pub chosen: Vec<(&'static str, Value)>,
    /// Images for a picture, if one was requested.
    pub shown: Vec<Shown>,
    /// Of the patch features of the test images.
    pub spread: Option<Spread>,
}

/// Prints which images were skipped, and returns a sentence about them; `None` if there are none.
pub fn skipped(role: &str, broken: &[BrokenImage]) -> Option<String> {
    name_skipped(role, broken);
    let first = broken.first()?;
    let (count, name, reason) = (broken.len(), &first.name, &first.reason);
    Some(format!("skipped {count} of the {role} images; the first is {name}: {reason}"))
}

/// Scores a segmenter on the test set, and measures the spread of its features with the `meter`.
/// If `picture` is set, keeps the first predictions. The result has no training images yet, and a
/// note if test images were skipped.
pub fn score(
    segmenter: &dyn Segmenter,
    test: &DenseData<'_>,
    mask: MaskSize,
    picture: bool,
    meter: Option<&Metered<'_>>,
) -> Result<Scored> {
    meter.iter().for_each(|meter| meter.restart());
    let bar =
        progress(test.limit.unwrap_or(test.set.len()).min(test.set.len()), "images segmented");
    let mut shown = Vec::new();
    let evaluated = evaluate(test, segmenter, mask, &mut |_, sample, predicted| {
        bar.inc(1);
        if picture && shown.len() < SHOWN {
            let (image, truth) = (sample.image.clone(), sample.labels.clone());
            shown.push(Shown { image, truth, predicted: predicted.to_vec() });
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    Ok(Scored {
        score: evaluated.confusion.score()?,
        images: [0, evaluated.images],
        notes: skipped("test", &evaluated.broken).into_iter().collect(),
        chosen: Vec::new(),
        shown,
        spread: meter.map(|meter| meter.spread()).transpose()?.flatten(),
    })
}

impl Scored {
    /// Adds the number of training images, and a note if some of them were skipped.
    pub fn trained_on(mut self, images: usize, broken: &[BrokenImage]) -> Self {
        self.images[0] = images;
        self.notes.splice(..0, skipped("training", broken));
        self
    }
}

/// The network and the images that a record is about.
pub struct About<'a> {
    pub subject: &'a DenseSubject,
    pub opened: &'a Opened,
    pub sets: &'a DenseSets,
}

impl About<'_> {
    /// Adds predictions of this network to the picture, if one was requested. `name` is appended to
    /// the label, to tell several rows of a network apart.
    pub fn draw(&self, sheet: &mut Sheet, name: &str, scored: &Scored) {
        let Some(file) = &self.subject.picture else { return };
        let label = format!("{}{name}", self.opened.path.display());
        let predicted = predicted_row(&label, &scored.shown);
        sheet.add(file, || Ok(truth_rows(&scored.shown)), [predicted]);
    }
}

/// Creates a record of the scores of a network and of the same network untrained.
pub fn record(
    protocol: &str,
    about: &About<'_>,
    settings: &impl Serialize,
    trained: &Scored,
    untrained: Option<&Scored>,
) -> Result<Record> {
    let About { subject, opened, sets } = *about;
    let mut record = opened.record(protocol);
    if let Value::Object(settings) = serde_json::to_value(settings)? {
        settings.into_iter().for_each(|(name, value)| record.set(&name, value));
    }
    record.set("labels", sets.meaning.clone());
    let [train, test] = subject.data(sets);
    record.limits([train.limit, test.limit]);
    record.data =
        vec![train.used("train", trained.images[0]), test.used("test", trained.images[1])];
    let name = |class| sets.test.rules().name(class);
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
    let per_class = trained.score.per_class.iter().enumerate();
    let empty: Vec<String> =
        per_class.filter(|(_, class)| class.pixels == 0).map(|(class, _)| name(class)).collect();
    if !empty.is_empty() {
        record.note(&format!("classes without a pixel in the test images: {}", empty.join(", ")));
    }
    Ok(record)
}
