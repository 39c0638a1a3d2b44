//! J and F of one object in one frame.

use super::boundary;
use super::mask::ObjectMask;

/// The scores of one object in one frame, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameScore {
    /// Region similarity: intersection over union, and 1 if both masks are empty.
    pub j: f64,
    /// Contour accuracy: the F measure of boundary pixels within a tolerance.
    pub f: f64,
    /// Whether the annotation shows the object but the mask is empty.
    pub missed: bool,
}

/// Scores a mask against an annotation; returns `None` if they differ in size.
#[must_use]
pub fn score_frame(mask: &ObjectMask, annotation: &ObjectMask) -> Option<FrameScore> {
    let same = (mask.width(), mask.height()) == (annotation.width(), annotation.height());
    same.then(|| FrameScore {
        j: region_similarity(mask, annotation),
        f: contour_accuracy(mask, annotation),
        missed: is_empty(mask) && !is_empty(annotation),
    })
}

fn is_empty(mask: &ObjectMask) -> bool {
    !mask.pixels().contains(&true)
}

fn region_similarity(mask: &ObjectMask, annotation: &ObjectMask) -> f64 {
    let (mut common, mut whole) = (0_usize, 0_usize);
    for (&a, &b) in mask.pixels().iter().zip(annotation.pixels()) {
        common += usize::from(a && b);
        whole += usize::from(a || b);
    }
    if whole == 0 { 1.0 } else { common as f64 / whole as f64 }
}

fn contour_accuracy(mask: &ObjectMask, annotation: &ObjectMask) -> f64 {
    let (found, expected) = (boundary::of(mask), boundary::of(annotation));
    let (precision, recall) = match (found.pixels(), expected.pixels()) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        (all_found, all_expected) => {
            let radius = boundary::tolerance(mask.width(), mask.height());
            (
                found.near(&expected, radius) as f64 / all_found as f64,
                expected.near(&found, radius) as f64 / all_expected as f64,
            )
        }
    };
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rows: &[&str]) -> ObjectMask {
        let pixels = rows.iter().flat_map(|row| row.bytes()).map(|b| b == b'#').collect();
        ObjectMask::new(rows[0].len(), rows.len(), pixels).unwrap()
    }

    #[test]
    fn two_empty_masks_agree() {
        let empty = mask(&["....", "...."]);
        let full = mask(&[".##.", ".##."]);
        assert_eq!(score_frame(&empty, &empty), Some(FrameScore { j: 1.0, f: 1.0, missed: false }));
        assert_eq!(score_frame(&full, &full), Some(FrameScore { j: 1.0, f: 1.0, missed: false }));
        assert_eq!(score_frame(&empty, &full), Some(FrameScore { j: 0.0, f: 0.0, missed: true }));
        assert_eq!(score_frame(&full, &empty), Some(FrameScore { j: 0.0, f: 0.0, missed: false }));
    }

    #[test]
    fn half_an_object() {
        let score = score_frame(&mask(&["##......"; 8]), &mask(&["####...."; 8])).unwrap();
        // The boundaries are two columns apart, but the tolerance of such a small frame is one.
        assert_eq!(score, FrameScore { j: 0.5, f: 0.0, missed: false });
        let score = score_frame(&mask(&["###....."; 8]), &mask(&["####...."; 8])).unwrap();
        assert_eq!(score, FrameScore { j: 0.75, f: 1.0, missed: false });
    }

    #[test]
    fn sizes_must_agree() {
        assert_eq!(ObjectMask::new(2, 2, vec![true; 3]), None);
        assert_eq!(score_frame(&mask(&["##"]), &mask(&["#", "#"])), None);
    }
}
