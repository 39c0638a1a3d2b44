//! Scores of a segmentation, and their conversion to a record.

use data::loader::BrokenImage;
use eval::record::Record;
use eval::segmentation::{
    DenseData, MaskSize, SegmentationScore, Segmenter, Shown, evaluate, predicted_row, truth_rows,
};
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
}

/// Prints which images were skipped, and returns a sentence about them; `None` if there are none.
pub fn skipped(role: &str, broken: &[BrokenImage]) -> Option<String> {
    name_skipped(role, broken);
    let first = broken.first()?;
    let (count, name, reason) = (broken.len(), &first.name, &first.reason);
    Some(format!("skipped {count} of the {role} images; the first is {name}: {reason}"))
}

/// A score, the number of images, a sentence about skipped images, and images for a picture.
type OnTestSet = (SegmentationScore, usize, Option<String>, Vec<Shown>);

/// Scores a segmenter on the test set. If `picture` is set, returns the first predictions as well.
pub fn score(
    segmenter: &dyn Segmenter,
    test: &DenseData<'_>,
    mask: MaskSize,
    picture: bool,
) -> Result<OnTestSet> {
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
    let skipped = skipped("test", &evaluated.broken);
    Ok((evaluated.confusion.score()?, evaluated.images, skipped, shown))
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
    pub fn draw(&self, sheet: &mut Sheet, name: &str, scored: &Scored) -> Result<()> {
        let Some(file) = &self.subject.picture else { return Ok(()) };
        let label = format!("{}{name}", self.opened.path.display());
        let predicted = predicted_row(&label, &scored.shown);
        sheet.add(file, || Ok(truth_rows(&scored.shown)), [predicted])
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
    trained.notes.iter().for_each(|text| record.note(text));
    let per_class = trained.score.per_class.iter().enumerate();
    let empty: Vec<String> =
        per_class.filter(|(_, class)| class.pixels == 0).map(|(class, _)| name(class)).collect();
    if !empty.is_empty() {
        record.note(&format!("classes without a pixel in the test images: {}", empty.join(", ")));
    }
    Ok(record)
}
