//! The shapes that are compared: boxes, or masks with the boxes around them.

use rayon::prelude::*;

use super::options::{Kind, Options};
use super::results::{Detection, Detections};
use super::truth::{Annotation, GroundTruth, Image};
use crate::{BBox, EntryError, Result, Rle};

/// A box or a mask.
#[derive(Debug)]
pub(crate) enum Shape {
    Box(BBox),
    /// A mask and the box around it, which is a quick test of whether two masks can overlap.
    Mask(Rle, BBox),
}

impl Shape {
    /// Returns the intersection over union of a detection with an instance of the ground truth.
    /// Both must be boxes, or masks of the same size.
    pub(super) fn iou(&self, truth: &Self, crowd: bool) -> f64 {
        match (self, truth) {
            (Self::Mask(mask, bbox), Self::Mask(other, other_box)) => {
                if bbox.iou(other_box, false) > 0.0 { mask.overlap(other, crowd) } else { 0.0 }
            }
            (Self::Mask(_, a) | Self::Box(a), Self::Mask(_, b) | Self::Box(b)) => a.iou(b, crowd),
        }
    }
}

/// A shape and its area, which decides whether it is small, medium, or large.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) shape: Shape,
    pub(super) area: f64,
}

/// Returns the shape and the area of each annotation.
pub(super) fn of_truth(truth: &GroundTruth, images: &[usize], kind: Kind) -> Result<Vec<Measured>> {
    let list = truth.annotations().par_iter().zip(images).enumerate();
    let shapes = list.map(|(index, (annotation, &image))| {
        let shape = of_annotation(annotation, &truth.images()[image], kind)
            .map_err(|source| truth.error(index, source))?;
        let area = annotation.area.ok_or(EntryError::Missing { key: "area" });
        let area = area.map_err(|source| truth.error(index, source))?;
        Ok(Measured { shape, area })
    });
    shapes.collect()
}

/// Returns the box or the mask of an annotation.
pub(crate) fn of_annotation(
    annotation: &Annotation,
    image: &Image,
    kind: Kind,
) -> std::result::Result<Shape, EntryError> {
    match kind {
        Kind::Box => {
            let bbox = annotation.bbox.ok_or(EntryError::Missing { key: "bbox" })?;
            if !bbox.is_valid() {
                return Err(EntryError::Box { values: bbox.into() });
            }
            Ok(Shape::Box(bbox))
        }
        Kind::Mask => {
            let segmentation = annotation.segmentation.as_ref();
            let segmentation = segmentation.ok_or(EntryError::Missing { key: "segmentation" })?;
            let mask = segmentation.to_rle(image.height, image.width).map_err(EntryError::Mask)?;
            let bbox = mask.bounding_box();
            Ok(Shape::Mask(mask, bbox))
        }
    }
}

/// Returns the shape and the area of each detection.
pub(super) fn of_detections(
    detections: &Detections,
    truth: &GroundTruth,
    images: &[usize],
    options: &Options,
) -> Result<Vec<Measured>> {
    let list = detections.list().par_iter().zip(images).enumerate();
    let shapes = list.map(|(index, (detection, &image))| {
        of_detection(detection, &truth.images()[image], options)
            .map_err(|source| detections.error(index, source))
    });
    shapes.collect()
}

fn of_detection(
    detection: &Detection,
    image: &Image,
    options: &Options,
) -> std::result::Result<Measured, EntryError> {
    if let (Kind::Box, Some(bbox)) = (options.kind, detection.bbox) {
        return Ok(Measured { shape: Shape::Box(bbox), area: bbox.area() });
    }
    let key = if options.kind == Kind::Box { "bbox" } else { "segmentation" };
    let segmentation = detection.segmentation.as_ref().ok_or(EntryError::Missing { key })?;
    let mask = segmentation.to_rle(image.height, image.width).map_err(EntryError::Mask)?;
    let (mut area, bbox) = (mask.area() as f64, mask.bounding_box());
    let shape = match options.kind {
        Kind::Box => Shape::Box(bbox),
        Kind::Mask => Shape::Mask(mask, bbox),
    };
    if options.kind == Kind::Mask && options.box_areas {
        area = detection.bbox.map_or(area, |bbox| bbox.area());
    }
    Ok(Measured { shape, area })
}

/// Returns the box of a detection, or the box around its mask.
pub(crate) fn box_of_detection(
    detection: &Detection,
    image: &Image,
) -> std::result::Result<BBox, EntryError> {
    let sized = of_detection(detection, image, &Options::default())?;
    let (Shape::Box(bbox) | Shape::Mask(_, bbox)) = sized.shape;
    Ok(bbox)
}
