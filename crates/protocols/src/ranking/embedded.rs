//! Vectors of whole images that rank other images, and their scores.

use std::collections::HashSet;

use data::loader::BrokenImage;
use eval::record::{Metrics, Record};
use eval::retrieval::{EmbedOptions, Embedded, ImageFeatureKind, ImageFile, embed};
use eval::spectrum::Spread;
use model::VisionTransformer;
use tch::Tensor;

use crate::error::Result;
use crate::observer::{Counter, Observer};
use crate::subject::Subject;

/// Side in pixels of the images of the baseline.
const PIXELS: u32 = 32;

/// The scores of a network.
pub(super) struct Scores {
    pub(super) metrics: Metrics,
    /// Of the features of the database; `None` for pixels.
    pub(super) spread: Option<Spread>,
    /// Sentences about images that were skipped.
    pub(super) notes: Vec<String>,
}

/// Scores the baselines: the pixels themselves, and, unless `skip_untrained` is set, the same
/// network untrained. `of` scores the vectors that a network and a kind of feature give.
///
/// # Errors
/// Returns the errors of `of`.
pub(super) fn baselines(
    subject: &Subject,
    kind: ImageFeatureKind,
    skip_untrained: bool,
    of: &dyn Fn(&EmbedOptions<'_>) -> Result<Scores>,
) -> Result<Vec<(&'static str, Metrics)>> {
    let own = &subject.weights.backbone;
    let pixels = kind.pixels(PIXELS, subject.weights.model.patch_size);
    let pixels = of(&options(subject, own, pixels))?.metrics;
    let mut baselines = vec![("pixels", pixels)];
    if !skip_untrained {
        let untrained = subject.untrained()?;
        let scores = of(&options(subject, untrained.network().backbone, kind))?;
        baselines.push(("untrained", scores.metrics));
    }
    Ok(baselines)
}

/// Adds scores to a record. The main one comes first, because a record takes its first score as
/// main.
pub(super) fn put(
    record: &mut Record,
    main: &str,
    scores: &Scores,
    baselines: &[(&'static str, Metrics)],
) {
    if let Some(value) = scores.metrics.get(main) {
        record.score(main, *value);
    }
    scores.metrics.iter().for_each(|(name, value)| record.score(name, *value));
    scores.spread.into_iter().for_each(|spread| record.spread(spread));
    scores.notes.iter().for_each(|text| record.note(text));
    for (of, metrics) in baselines {
        metrics.iter().for_each(|(name, value)| record.baseline(of, name, *value));
    }
}

/// Returns the spread of the features `[n, D]` of a database, unless they are pixels.
///
/// # Errors
/// Returns an error if a libtorch operation fails.
pub(super) fn spread(database: &Tensor, options: &EmbedOptions<'_>) -> Result<Option<Spread>> {
    match is_pixels(options) {
        true => Ok(None),
        false => Ok(Some(Spread::of(database)?)),
    }
}

/// Returns whether vectors are pixels.
pub(super) fn is_pixels(options: &EmbedOptions<'_>) -> bool {
    matches!(options.kind, ImageFeatureKind::Pixels { .. })
}

/// Describes the vectors of a network.
pub(super) fn options<'a>(
    subject: &'a Subject,
    backbone: &'a VisionTransformer,
    kind: ImageFeatureKind,
) -> EmbedOptions<'a> {
    EmbedOptions { frozen: subject.frozen(backbone), pixels: subject.pixels(), kind }
}

/// Embeds the images of a task, and adds those that could not be read to `broken`. Also returns
/// their indices.
///
/// # Errors
/// Returns an error if no image is readable, or the network fails.
pub(super) fn embedded(
    (task, files): (&'static str, &[ImageFile]),
    options: &EmbedOptions<'_>,
    broken: &mut Vec<BrokenImage>,
    observer: &dyn Observer,
) -> Result<(Embedded, HashSet<usize>)> {
    let mut counter = Counter::new(observer, task, files.len());
    let embedded = embed(files, options, &mut |done, _| counter.set(done))?;
    counter.finish();
    broken.extend(embedded.broken.iter().cloned());
    let missing = embedded.broken.iter().map(|image| image.index).collect();
    Ok((embedded, missing))
}

/// Tells which images were skipped, and returns a sentence about them if there are any.
pub(super) fn notes(broken: &[BrokenImage], observer: &dyn Observer) -> Vec<String> {
    observer.skipped("", broken); // names are full paths, so they are unique
    let first = broken.first().map(|image| {
        let (count, name, reason) = (broken.len(), &image.name, &image.reason);
        format!(
            "{count} of the images could not be used and will not count; the first is {name}: \
             {reason}"
        )
    });
    first.into_iter().collect()
}
