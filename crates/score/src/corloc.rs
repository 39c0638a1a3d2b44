//! CorLoc: the share of images in which one box finds an object.

use serde::{Deserialize, Serialize};

use crate::coco::{
    Detections, GroundTruth, Kind, Shape, box_of_detection, images_of, of_annotation,
};
use crate::{BBox, Result};

/// The share of images whose best box finds an object, and the counts behind it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorLoc {
    /// `correct / images`; `None` if no image shows an object.
    pub corloc: Option<f64>,
    /// Number of images whose box overlaps an object by at least one half.
    pub correct: usize,
    /// Number of images that show an object.
    pub images: usize,
    /// Number of those images without a box; they count as not correct.
    pub without_box: usize,
    /// Number of images without an object, or with only crowds; they do not count.
    pub without_object: usize,
}

/// Compares one box of each image with all objects of the image.
///
/// The box is the one with the highest score, and the first one among equals; a mask stands for the
/// box around it. It is correct if its intersection over union with an object is at least one half.
/// Crowds do not count.
///
/// # Errors
/// Returns [`Error::Entry`] for a detection of an image that the ground truth does not list, for
/// one with neither a box nor a valid mask, and for an instance without a box.
///
/// [`Error::Entry`]: crate::Error::Entry
pub fn corloc(truth: &GroundTruth, detections: &Detections) -> Result<CorLoc> {
    let objects = objects(truth)?;
    let best = best_boxes(truth, detections)?;
    let mut result =
        CorLoc { corloc: None, correct: 0, images: 0, without_box: 0, without_object: 0 };
    for (objects, best) in objects.iter().zip(best) {
        if objects.is_empty() {
            result.without_object += 1;
            continue;
        }
        result.images += 1;
        match best {
            None => result.without_box += 1,
            Some(best) if objects.iter().any(|object| best.iou(object, false) >= 0.5) => {
                result.correct += 1;
            }
            Some(_) => {}
        }
    }
    if result.images > 0 {
        result.corloc = Some(result.correct as f64 / result.images as f64);
    }
    Ok(result)
}

/// Returns the boxes of each image's objects, without crowds.
fn objects(truth: &GroundTruth) -> Result<Vec<Vec<BBox>>> {
    let indices = truth.image_indices();
    let mut objects = vec![Vec::new(); truth.images().len()];
    for (index, annotation) in truth.annotations().iter().enumerate() {
        if annotation.iscrowd {
            continue;
        }
        let image = indices[&annotation.image_id];
        let shape = of_annotation(annotation, &truth.images()[image], Kind::Box);
        let shape = shape.map_err(|source| truth.error(index, source))?;
        let (Shape::Box(bbox) | Shape::Mask(_, bbox)) = shape;
        objects[image].push(bbox);
    }
    Ok(objects)
}

/// Returns the box with the highest score in each image.
fn best_boxes(truth: &GroundTruth, detections: &Detections) -> Result<Vec<Option<BBox>>> {
    let mut best: Vec<Option<(f64, BBox)>> = vec![None; truth.images().len()];
    for (index, image) in images_of(detections, truth)?.into_iter().enumerate() {
        let detection = &detections.list()[index];
        let bbox = box_of_detection(detection, &truth.images()[image]);
        let bbox = bbox.map_err(|source| detections.error(index, source))?;
        if best[image].is_none_or(|(score, _)| detection.score > score) {
            best[image] = Some((detection.score, bbox));
        }
    }
    Ok(best.into_iter().map(|best| best.map(|(_, bbox)| bbox)).collect())
}
