//! Precision and recall of one class over all images.

use super::matching::{Matched, THRESHOLDS, descending};
use super::options::AREAS;

/// Number of recall levels at which the precision is sampled: 0.00, 0.01, ..., 1.00.
const RECALLS: usize = 101;

/// Precision and recall of a class within an area range, per overlap threshold.
#[derive(Debug)]
pub(super) struct Curve {
    /// The precision at each recall level, made non-increasing.
    pub(super) precision: [[f64; RECALLS]; THRESHOLDS],
    /// The recall of all detections.
    pub(super) recall: [f64; THRESHOLDS],
}

/// The curves of a class. A curve is `None` if no instance counts for it.
#[derive(Debug)]
pub(super) struct CategoryCurves {
    /// One per area range, with the largest detection limit.
    pub(super) areas: [Option<Curve>; AREAS.len()],
    /// For all areas, with the two smaller detection limits.
    pub(super) fewer: [Option<Curve>; 2],
    /// Number of instances that are not crowds.
    pub(super) positives: usize,
}

/// Computes the curves of a class from its matches in each image, given in the order of the images.
pub(super) fn category_curves(matched: &[Matched], max_detections: [usize; 3]) -> CategoryCurves {
    let [one, few, most] = max_detections;
    CategoryCurves {
        areas: [0, 1, 2, 3].map(|area| curve(matched, area, most)),
        fewer: [one, few].map(|count| curve(matched, 0, count)),
        positives: matched.iter().map(|image| image.areas[0].positives).sum(),
    }
}

fn curve(matched: &[Matched], area: usize, max_detections: usize) -> Option<Curve> {
    let positives: usize = matched.iter().map(|image| image.areas[area].positives).sum();
    if positives == 0 {
        return None;
    }
    let mut ranked: Vec<(f64, u16, u16)> = Vec::new();
    for image in matched {
        let matches = &image.areas[area];
        let bits = matches.hits.iter().zip(&matches.alarms);
        let all = image.scores.iter().zip(bits).map(|(&score, (&hit, &alarm))| (score, hit, alarm));
        ranked.extend(all.take(max_detections));
    }
    // The sort is stable, so equal scores stay in the order of the images.
    ranked.sort_by(|a, b| descending(a.0, b.0));
    let mut curve = Curve { precision: [[0.0; RECALLS]; THRESHOLDS], recall: [0.0; THRESHOLDS] };
    for index in 0..THRESHOLDS {
        let outcomes =
            ranked.iter().map(|(_, hits, alarms)| (hits >> index & 1, alarms >> index & 1));
        let points = points(outcomes, positives);
        curve.recall[index] = points.last().map_or(0.0, |(recall, _)| *recall);
        curve.precision[index] = sampled(points);
    }
    Some(curve)
}

/// Returns the recall and the precision after each detection.
fn points(outcomes: impl Iterator<Item = (u16, u16)>, positives: usize) -> Vec<(f64, f64)> {
    let (mut hits, mut alarms) = (0.0, 0.0);
    let point = |(hit, alarm): (u16, u16)| {
        hits += f64::from(hit);
        alarms += f64::from(alarm);
        (hits / positives as f64, hits / (alarms + hits + f64::EPSILON))
    };
    outcomes.map(point).collect()
}

/// Returns the best precision at each recall level or above it; zero beyond the highest recall.
fn sampled(mut points: Vec<(f64, f64)>) -> [f64; RECALLS] {
    for index in (1..points.len()).rev() {
        points[index - 1].1 = points[index - 1].1.max(points[index].1);
    }
    let mut sampled = [0.0; RECALLS];
    for (index, value) in sampled.iter_mut().enumerate() {
        let recall = if index + 1 == RECALLS { 1.0 } else { index as f64 * 0.01 };
        let first = points.partition_point(|point| point.0 < recall);
        *value = points.get(first).map_or(0.0, |point| point.1);
    }
    sampled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn precision_is_the_best_at_a_higher_recall() {
        // A hit, a false alarm, and a hit, for four instances.
        let points = points([(1, 0), (0, 1), (1, 0)].into_iter(), 4);
        let recalls: Vec<f64> = points.iter().map(|point| point.0).collect();
        assert_eq!(recalls, [0.25, 0.25, 0.5]);
        let sampled = sampled(points);
        assert!((sampled[25] - 1.0).abs() < 1e-12 && (sampled[26] - 2.0 / 3.0).abs() < 1e-12);
        assert!((sampled[50] - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(sampled[51..], [0.0; 50]);
    }
}
