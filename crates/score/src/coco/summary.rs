//! The summary of an evaluation.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::accumulate::{CategoryCurves, Curve};
use super::options::Options;
use super::results::Detections;
use super::truth::GroundTruth;
use crate::{Result, table};

/// COCO's twelve numbers, from 0 to 1. A number is `None` if no instance of that size exists.
///
/// AP is the precision averaged over the overlap thresholds 0.50, 0.55, ..., 0.95, over 101 recall
/// levels, and over the classes that have instances; AR is the recall averaged over thresholds and
/// classes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Average precision.
    pub ap: Option<f64>,
    /// Average precision at an overlap of 0.5.
    pub ap50: Option<f64>,
    /// Average precision at an overlap of 0.75.
    pub ap75: Option<f64>,
    /// Average precision for instances of at most 32 x 32 pixels.
    pub ap_small: Option<f64>,
    /// Average precision for instances from 32 x 32 to 96 x 96 pixels.
    pub ap_medium: Option<f64>,
    /// Average precision for instances of at least 96 x 96 pixels.
    pub ap_large: Option<f64>,
    /// Average recall with the first limit of [`Options::max_detections`], 1 by default.
    pub ar_1: Option<f64>,
    /// Average recall with the second limit, 10 by default.
    pub ar_10: Option<f64>,
    /// Average recall with the third limit, 100 by default.
    pub ar_100: Option<f64>,
    /// Average recall for small instances.
    pub ar_small: Option<f64>,
    /// Average recall for medium instances.
    pub ar_medium: Option<f64>,
    /// Average recall for large instances.
    pub ar_large: Option<f64>,
    /// Number of images in the ground truth.
    pub images: usize,
    /// Number of instances that are not crowds.
    pub instances: usize,
    /// Number of detections in the results.
    pub detections: usize,
    /// Number of images without any detection.
    pub images_without_detections: usize,
    /// The classes that have instances, in the order of the ground truth; a single entry if the
    /// evaluation is class-agnostic.
    pub categories: Vec<CategoryPrecision>,
}

/// The average precision of a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CategoryPrecision {
    /// Its name.
    pub name: String,
    /// Average precision.
    pub ap: f64,
    /// Average precision at an overlap of 0.5.
    pub ap50: f64,
    /// Number of instances that are not crowds.
    pub instances: usize,
}

impl Summary {
    /// Computes the summary from the curves of each class.
    pub(super) fn new(
        truth: &GroundTruth,
        detections: &Detections,
        curves: &[(usize, CategoryCurves)],
        options: &Options,
    ) -> Self {
        let of_area = |area: usize| -> Vec<&Curve> {
            curves.iter().filter_map(|(_, curves)| curves.areas[area].as_ref()).collect()
        };
        let fewer = |index: usize| -> Vec<&Curve> {
            curves.iter().filter_map(|(_, curves)| curves.fewer[index].as_ref()).collect()
        };
        let [all, small, medium, large] = [0, 1, 2, 3].map(of_area);
        let seen: std::collections::HashSet<_> =
            detections.list().iter().map(|detection| &detection.image_id).collect();
        Self {
            ap: precision(&all, 0..10),
            ap50: precision(&all, 0..1),
            ap75: precision(&all, 5..6),
            ap_small: precision(&small, 0..10),
            ap_medium: precision(&medium, 0..10),
            ap_large: precision(&large, 0..10),
            ar_1: recall(&fewer(0)),
            ar_10: recall(&fewer(1)),
            ar_100: recall(&all),
            ar_small: recall(&small),
            ar_medium: recall(&medium),
            ar_large: recall(&large),
            images: truth.images().len(),
            instances: curves.iter().map(|(_, curves)| curves.positives).sum(),
            detections: detections.list().len(),
            images_without_detections: truth.images().len() - seen.len(),
            categories: curves
                .iter()
                .filter_map(|(category, curves)| {
                    let curve = [curves.areas[0].as_ref()?];
                    let name = match options.class_agnostic {
                        true => "object".to_owned(),
                        false => truth.categories()[*category].name.clone(),
                    };
                    let (ap, ap50) = (precision(&curve, 0..10)?, precision(&curve, 0..1)?);
                    Some(CategoryPrecision { name, ap, ap50, instances: curves.positives })
                })
                .collect(),
        }
    }
}

/// Writes a CSV file with one row per evaluation (such as `box` and `mask`) and class.
///
/// # Errors
/// Returns [`Error::Write`] if the file cannot be written.
///
/// [`Error::Write`]: crate::Error::Write
pub fn write_csv(path: &Path, evaluations: &[(&str, &Summary)]) -> Result<()> {
    let rows = evaluations.iter().flat_map(|(kind, summary)| {
        summary.categories.iter().map(|category| {
            let CategoryPrecision { name, ap, ap50, instances } = category;
            vec![
                (*kind).to_owned(),
                name.clone(),
                instances.to_string(),
                ap.to_string(),
                ap50.to_string(),
            ]
        })
    });
    table::write(path, &["kind", "category", "instances", "ap", "ap50"], rows)
}

/// Returns the mean precision over these thresholds, all recall levels, and all classes.
fn precision(curves: &[&Curve], thresholds: std::ops::Range<usize>) -> Option<f64> {
    mean(curves.iter().flat_map(|curve| curve.precision[thresholds.clone()].as_flattened()))
}

fn recall(curves: &[&Curve]) -> Option<f64> {
    mean(curves.iter().flat_map(|curve| &curve.recall))
}

fn mean<'a>(values: impl Iterator<Item = &'a f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_usize);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / count as f64)
}
