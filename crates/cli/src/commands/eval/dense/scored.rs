//! Scores of a segmentation, and how they become a record.

use std::path::Path;

use data::loader::BrokenImage;
use eval::record::Record;
use eval::segmentation::{
    DenseData, MaskSize, SegmentationScore, Segmenter, Shown, evaluate, segmentation_sheet,
};
use serde::Serialize;
use serde_json::Value;

use crate::commands::eval::networks::Opened;
use crate::console::{note, progress};
use crate::failure::{Context, Result};

use super::subject::{DenseSets, DenseSubject};

/// Images in a picture of predictions.
const SHOWN: usize = 4;

/// Scores of one network.
pub struct Scored {
    pub score: SegmentationScore,
    /// Number of images learned from, and of images scored.
    pub images: [usize; 2],
    /// Sentences about images that were skipped.
    pub notes: Vec<String>,
    /// What the protocol chose, by name.
    pub chosen: Vec<(&'static str, Value)>,
}

/// Says which images were skipped, if any were; also on the console.
pub fn skipped(role: &str, broken: &[BrokenImage]) -> Option<String> {
    for image in broken {
        note(&format!("warning: skipped {}: {}", image.name, image.reason));
    }
    let first = broken.first()?;
    let (count, name, reason) = (broken.len(), &first.name, &first.reason);
    Some(format!(
        "{count} {role} images could not be used and are left out; the first: {name}: {reason}"
    ))
}

/// Scores a segmenter on the test set; `picture` is the file for its first predictions.
pub fn score(
    segmenter: &dyn Segmenter,
    test: &DenseData<'_>,
    mask: MaskSize,
    picture: Option<&Path>,
) -> Result<(SegmentationScore, usize, Option<String>)> {
    let bar =
        progress(test.limit.unwrap_or(test.set.len()).min(test.set.len()), "images segmented");
    let mut shown = Vec::new();
    let evaluated = evaluate(test, segmenter, mask, &mut |_, sample, predicted| {
        bar.inc(1);
        if picture.is_some() && shown.len() < SHOWN {
            let (image, truth) = (sample.image.clone(), sample.labels.clone());
            shown.push(Shown { image, truth, predicted: predicted.to_vec() });
        }
        Ok(())
    })?;
    bar.finish_and_clear();
    if let Some(path) = picture {
        let sheet = segmentation_sheet(&shown);
        sheet.save(path).context(|| format!("cannot write {}", path.display()))?;
    }
    Ok((evaluated.confusion.score()?, evaluated.images, skipped("test", &evaluated.broken)))
}

/// A record of the scores of a network and of the same network untrained.
pub fn record(
    protocol: &str,
    subject: &DenseSubject,
    opened: &Opened,
    sets: &DenseSets,
    settings: &impl Serialize,
    trained: &Scored,
    untrained: Option<&Scored>,
) -> Result<Record> {
    let mut record = opened.record(protocol);
    (record.resize, record.crop) = (None, None);
    if let Value::Object(settings) = serde_json::to_value(settings)? {
        settings.into_iter().for_each(|(name, value)| record.set(&name, value));
    }
    record.set("labels", sets.meaning.clone());
    let [train, test] = subject.data(sets);
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
        record.note(&format!("no pixel of the test images has the classes {}", empty.join(", ")));
    }
    Ok(record)
}
