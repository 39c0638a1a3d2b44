//! Boxes.

use serde::{Deserialize, Serialize};

/// A box in pixels, stored as in COCO: `[x, y, width, height]`, from the top left corner of the
/// image.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "[f64; 4]", into = "[f64; 4]")]
pub struct BBox {
    /// Left edge.
    pub x: f64,
    /// Top edge.
    pub y: f64,
    /// Extent to the right of `x`.
    pub width: f64,
    /// Extent below `y`.
    pub height: f64,
}

impl BBox {
    /// Returns the width times the height, in pixels.
    #[must_use]
    pub fn area(&self) -> f64 {
        self.width * self.height
    }

    /// Returns the intersection over union with a box of the ground truth, or zero if they do not
    /// overlap. If `truth` is a crowd, the intersection is divided by the area of `self` instead of
    /// the union.
    #[must_use]
    pub fn iou(&self, truth: &Self, crowd: bool) -> f64 {
        let extent = |a: f64, b: f64, c: f64, d: f64| (a + b).min(c + d) - a.max(c);
        let width = extent(self.x, self.width, truth.x, truth.width);
        let height = extent(self.y, self.height, truth.y, truth.height);
        if width <= 0.0 || height <= 0.0 {
            return 0.0;
        }
        let common = width * height;
        common / if crowd { self.area() } else { self.area() + truth.area() - common }
    }

    /// Returns `true` if all numbers are finite and neither side is negative.
    pub(crate) fn is_valid(&self) -> bool {
        let numbers: [f64; 4] = (*self).into();
        numbers.iter().all(|number| number.is_finite()) && self.width >= 0.0 && self.height >= 0.0
    }
}

impl From<[f64; 4]> for BBox {
    fn from([x, y, width, height]: [f64; 4]) -> Self {
        Self { x, y, width, height }
    }
}

impl From<BBox> for [f64; 4] {
    fn from(bbox: BBox) -> Self {
        [bbox.x, bbox.y, bbox.width, bbox.height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_of_boxes() {
        let a = BBox::from([0.0, 0.0, 4.0, 2.0]);
        let b = BBox::from([2.0, 0.0, 4.0, 2.0]);
        assert_eq!(a.iou(&b, false), 4.0 / 12.0);
        assert_eq!(a.iou(&b, true), 0.5);
        assert_eq!(a.iou(&BBox::from([4.0, 0.0, 1.0, 1.0]), false), 0.0, "they only touch");
        let point = BBox::from([1.0, 1.0, 0.0, 0.0]);
        assert_eq!((a.iou(&point, false), point.iou(&point, true)), (0.0, 0.0));
    }
}
