//! The evaluation: detections are matched with the ground truth per image and class, then ranked
//! over all images.

use std::collections::BTreeMap;

use rayon::prelude::*;

use super::accumulate::{CategoryCurves, category_curves};
use super::matching::{AreaMatches, Instance, Matched, descending, match_area};
use super::options::{AREAS, Options};
use super::results::Detections;
use super::shapes::{self, Measured};
use super::summary::Summary;
use super::truth::GroundTruth;
use crate::{EntryError, Result};

/// The annotations and detections of one class in one image, as indices.
#[derive(Debug, Default)]
struct Group {
    truths: Vec<usize>,
    detections: Vec<usize>,
}

/// Compares detections with the ground truth.
///
/// # Errors
/// Returns [`Error::Entry`] for a detection of an image or a class that the ground truth does not
/// list, for a mask that is invalid or differs in size from its image, and for an entry that lacks
/// the box, mask, or area that the evaluation needs.
///
/// [`Error::Entry`]: crate::Error::Entry
pub fn evaluate(
    truth: &GroundTruth,
    detections: &Detections,
    options: &Options,
) -> Result<Summary> {
    let indices = truth.image_indices();
    let truth_images: Vec<usize> =
        truth.annotations().iter().map(|annotation| indices[&annotation.image_id]).collect();
    let detection_images = images_of(detections, truth)?;
    let truths = shapes::of_truth(truth, &truth_images, options.kind)?;
    let detected = shapes::of_detections(detections, truth, &detection_images, options)?;
    let groups = groups(truth, &truth_images, detections, &detection_images, options)?;
    let groups: Vec<_> = groups.into_iter().collect();
    let matched: Vec<Matched> = groups
        .into_par_iter()
        .map(|((category, _), mut group)| {
            rank(&mut group.detections, detections, options.max_detections[2]);
            let crowd = |index: usize| truth.annotations()[index].iscrowd;
            let areas = compare(&group, &truths, &detected, crowd);
            let scores = group.detections.iter().map(|&index| detections.list()[index].score);
            Matched { category, scores: scores.collect(), areas }
        })
        .collect();
    let by_category: Vec<&[Matched]> = matched.chunk_by(|a, b| a.category == b.category).collect();
    let curves: Vec<(usize, CategoryCurves)> = by_category
        .into_par_iter()
        .map(|matched| (matched[0].category, category_curves(matched, options.max_detections)))
        .collect();
    Ok(Summary::new(truth, detections, &curves, options))
}

/// Returns the index of each detection's image in the ground truth.
pub(crate) fn images_of(detections: &Detections, truth: &GroundTruth) -> Result<Vec<usize>> {
    let indices = truth.image_indices();
    let images = detections.list().iter().enumerate().map(|(index, detection)| {
        indices.get(&detection.image_id).copied().ok_or_else(|| {
            let (image, truth) = (detection.image_id.clone(), truth.name().to_owned());
            detections.error(index, EntryError::UnknownImage { image, truth })
        })
    });
    images.collect()
}

/// Groups annotations and detections by category and image. Images are ranked by their ids, which
/// breaks ties between equal scores.
fn groups(
    truth: &GroundTruth,
    truth_images: &[usize],
    detections: &Detections,
    detection_images: &[usize],
    options: &Options,
) -> Result<BTreeMap<(usize, usize), Group>> {
    let mut order: Vec<usize> = (0..truth.images().len()).collect();
    order.sort_by_key(|&image| &truth.images()[image].id);
    let mut ranks = vec![0; order.len()];
    order.iter().enumerate().for_each(|(rank, &image)| ranks[image] = rank);
    let categories = truth.category_indices();
    let mut groups: BTreeMap<(usize, usize), Group> = BTreeMap::new();
    for (index, annotation) in truth.annotations().iter().enumerate() {
        let category = categories[&annotation.category_id];
        let category = if options.class_agnostic { 0 } else { category };
        groups.entry((category, ranks[truth_images[index]])).or_default().truths.push(index);
    }
    for (index, detection) in detections.list().iter().enumerate() {
        let failed = |source| detections.error(index, source);
        let category = match (options.class_agnostic, detection.category_id) {
            (true, _) => 0,
            (false, None) => return Err(failed(EntryError::Missing { key: "category_id" })),
            (false, Some(category)) => *categories.get(&category).ok_or_else(|| {
                let truth = truth.name().to_owned();
                failed(EntryError::UnknownCategory { category, truth })
            })?,
        };
        groups
            .entry((category, ranks[detection_images[index]]))
            .or_default()
            .detections
            .push(index);
    }
    Ok(groups)
}

/// Sorts detections by descending score, keeping the order of equal ones, and drops all but the
/// first `count`.
fn rank(indices: &mut Vec<usize>, detections: &Detections, count: usize) {
    let score = |&index: &usize| detections.list()[index].score;
    indices.sort_by(|a, b| descending(score(a), score(b)));
    indices.truncate(count);
}

/// Matches the detections of a group with its instances, for each area range.
fn compare(
    group: &Group,
    truths: &[Measured],
    detected: &[Measured],
    crowd: impl Fn(usize) -> bool,
) -> [AreaMatches; AREAS.len()] {
    let instances: Vec<Instance> = group
        .truths
        .iter()
        .map(|&index| Instance { area: truths[index].area, crowd: crowd(index) })
        .collect();
    let ious: Vec<Vec<f64>> = group
        .detections
        .iter()
        .map(|&detection| {
            let pairs = group.truths.iter().zip(&instances);
            let iou = |(&truth, instance): (&usize, &Instance)| {
                detected[detection].shape.iou(&truths[truth].shape, instance.crowd)
            };
            pairs.map(iou).collect()
        })
        .collect();
    let areas: Vec<f64> = group.detections.iter().map(|&index| detected[index].area).collect();
    AREAS.map(|range| match_area(&ious, &instances, &areas, range))
}
