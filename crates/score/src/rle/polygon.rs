//! Rasterizes polygons and boxes, pixel for pixel as pycocotools does.
//!
//! The outline is drawn on a grid that is five times finer. Where it steps from one fine column to
//! the next across the center of a pixel column, the mask changes value from that height on. Two
//! changes at the same pixel cancel.

use super::{Rle, pixels};
use crate::{BBox, MaskError};

/// Fine cells per pixel.
const SCALE: f64 = 5.0;
/// The largest coordinate. The outline is drawn cell by cell, so a distant point would take
/// forever.
const MAX_COORDINATE: f64 = 1e6;

impl Rle {
    /// Returns the union of polygons, each a list `x0, y0, x1, y1, ...` in pixels.
    ///
    /// # Errors
    /// Returns [`MaskError::Polygon`] for an odd number of coordinates or fewer than three points
    /// (after the first polygon, two points are accepted and enclose nothing, as in pycocotools),
    /// [`MaskError::Coordinate`] for a coordinate that is not finite or more than a million pixels
    /// from the origin, [`MaskError::None`] if there are no polygons, and [`MaskError::TooLarge`].
    pub fn from_polygons(
        height: u32,
        width: u32,
        polygons: &[Vec<f64>],
    ) -> Result<Self, MaskError> {
        let masks = polygons.iter().enumerate().map(|(index, points)| {
            let count = points.len();
            let least = if index == 0 { 6 } else { 4 };
            if count < least || count % 2 == 1 {
                return Err(MaskError::Polygon { index, count });
            }
            outline(height, width, points)
        });
        Self::union(&masks.collect::<Result<Vec<_>, _>>()?)
    }

    /// Returns the pixels inside a box.
    ///
    /// # Errors
    /// Returns [`MaskError::Coordinate`] or [`MaskError::TooLarge`].
    pub fn from_box(height: u32, width: u32, bbox: BBox) -> Result<Self, MaskError> {
        let (left, right) = (bbox.x, bbox.x + bbox.width);
        let (top, bottom) = (bbox.y, bbox.y + bbox.height);
        outline(height, width, &[left, top, left, bottom, right, bottom, right, top])
    }
}

/// Returns the pixels inside one polygon.
fn outline(height: u32, width: u32, points: &[f64]) -> Result<Rle, MaskError> {
    let size = pixels(height, width)?;
    if let Some(&value) = points.iter().find(|value| value.is_nan() || value.abs() > MAX_COORDINATE)
    {
        return Err(MaskError::Coordinate { value });
    }
    let fine = |value: f64| (SCALE * value + 0.5) as i64;
    let corners: Vec<_> = points.chunks_exact(2).map(|xy| (fine(xy[0]), fine(xy[1]))).collect();
    let mut changes = Vec::new();
    let mut before = None;
    let next = corners.iter().cycle().skip(1);
    for (&from, &to) in corners.iter().zip(next) {
        walk(from, to, |cell| {
            let step = before.replace(cell).and_then(|old| crossing(old, cell, height, width));
            changes.extend(step);
        });
    }
    changes.sort_unstable();
    // Two changes at the same pixel cancel.
    let mut odd: Vec<u32> = Vec::with_capacity(changes.len());
    for change in changes {
        if odd.last() == Some(&change) {
            odd.pop();
        } else {
            odd.push(change);
        }
    }
    odd.push(size);
    let intervals = odd.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    Rle::from_intervals(height, width, intervals.filter(|(first, behind)| first < behind))
}

/// Visits the fine cells from one corner to the next, both inclusive.
fn walk(from: (i64, i64), to: (i64, i64), mut visit: impl FnMut((i64, i64))) {
    let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
    let along_x = dx >= dy;
    let backwards = if along_x { from.0 > to.0 } else { from.1 > to.1 };
    let (start, end) = if backwards { (to, from) } else { (from, to) };
    let steps = dx.max(dy);
    let rise = if along_x { end.1 - start.1 } else { end.0 - start.0 };
    // NaN if both corners are in the same cell, where nothing is crossed.
    let slope = rise as f64 / steps as f64;
    for step in 0..=steps {
        let step = if backwards { steps - step } else { step };
        let across = |start: i64| (start as f64 + slope * step as f64 + 0.5) as i64;
        visit(match along_x {
            true => (start.0 + step, across(start.1)),
            false => (across(start.0), start.1 + step),
        });
    }
}

/// Returns the pixel from which the mask changes value, if the step crosses the center of a pixel
/// column.
fn crossing(from: (i64, i64), to: (i64, i64), height: u32, width: u32) -> Option<u32> {
    if from.0 == to.0 {
        return None;
    }
    let coarse = |fine: i64| (fine as f64 + 0.5) / SCALE - 0.5;
    let x = coarse(if to.0 < from.0 { to.0 } else { to.0 - 1 });
    if x.floor() != x || x < 0.0 || x >= f64::from(width) {
        return None;
    }
    let y = coarse(to.1.min(from.1)).clamp(0.0, f64::from(height)).ceil();
    Some(x as u32 * height + y as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_box_holds_its_pixels() {
        let mask = Rle::from_box(4, 5, BBox { x: 1.0, y: 1.0, width: 3.0, height: 2.0 }).unwrap();
        assert_eq!(mask.counts(), [5, 2, 2, 2, 2, 2, 5]);
        // The box covers the last column to its end, so no empty run follows.
        let edge = Rle::from_box(2, 2, BBox { x: 1.0, y: 0.0, width: 9.0, height: 9.0 }).unwrap();
        assert_eq!(edge.counts(), [2, 2]);
        let out = Rle::from_box(2, 2, BBox { x: 7.0, y: 7.0, width: 9.0, height: 9.0 }).unwrap();
        assert_eq!(out.counts(), [4]);
    }

    #[test]
    fn what_is_no_polygon_is_refused() {
        let read = |polygons: &[&[f64]]| {
            let polygons: Vec<Vec<f64>> = polygons.iter().map(|p| p.to_vec()).collect();
            Rle::from_polygons(9, 9, &polygons).unwrap_err()
        };
        assert!(matches!(read(&[]), MaskError::None));
        assert!(matches!(read(&[&[1.0, 2.0]]), MaskError::Polygon { index: 0, count: 2 }));
        let triangle = [0.0, 0.0, 5.0, 0.0, 5.0, 5.0];
        assert!(matches!(read(&[&triangle, &[1.0]]), MaskError::Polygon { index: 1, count: 1 }));
        let odd = [0.0, 0.0, 5.0, 0.0, 5.0, 5.0, 1.0];
        assert!(matches!(read(&[&odd]), MaskError::Polygon { index: 0, count: 7 }));
        let a_box = read(&[&[0.0, 0.0, 5.0, 5.0], &triangle]);
        assert!(matches!(a_box, MaskError::Polygon { index: 0, count: 4 }));
        for far in [f64::NAN, f64::INFINITY, -1e7] {
            let error = read(&[&[0.0, 0.0, 5.0, 0.0, far, 5.0]]);
            assert!(matches!(error, MaskError::Coordinate { .. }), "{error}");
        }
    }

    proptest! {
        #[test]
        fn every_polygon_is_a_mask_of_its_size(
            points in prop::collection::vec(-40_f64..40.0, 6..16),
            height in 0_u32..30,
            width in 0_u32..30,
        ) {
            let points = points[..points.len() / 2 * 2].to_vec();
            let mask = Rle::from_polygons(height, width, &[points]).unwrap();
            let again = Rle::new(height, width, mask.counts().to_vec());
            prop_assert_eq!(again.unwrap(), mask);
        }
    }
}
