//! Matches the detections of an image with its instances.

use super::options::AREAS;

/// Number of overlap thresholds: 0.50, 0.55, ..., 0.95. Only an overlap of at least the threshold
/// is a hit.
pub(super) const THRESHOLDS: usize = 10;

/// Returns the threshold with this index, rounded as by NumPy's `linspace`.
pub(super) fn threshold(index: usize) -> f64 {
    if index + 1 == THRESHOLDS {
        return 0.95;
    }
    index as f64 * ((0.95 - 0.5) / (THRESHOLDS - 1) as f64) + 0.5
}

/// The properties of an instance besides its shape.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) area: f64,
    pub(super) crowd: bool,
}

/// The outcomes of an image's detections among instances within an area range.
#[derive(Debug)]
pub(super) struct AreaMatches {
    /// For each detection, one bit per threshold: whether it is a hit.
    pub(super) hits: Vec<u16>,
    /// For each detection, one bit per threshold: whether it is a false alarm. It is neither if it
    /// hits a crowd or an instance outside the range, or if it hits nothing and is outside the
    /// range itself.
    pub(super) alarms: Vec<u16>,
    /// Number of instances that should be found: those within the range that are not crowds.
    pub(super) positives: usize,
}

/// The detections of one class in one image, by descending score, and their outcomes within each
/// area range.
#[derive(Debug)]
pub(super) struct Matched {
    pub(super) category: usize,
    pub(super) scores: Vec<f64>,
    pub(super) areas: [AreaMatches; AREAS.len()],
}

/// Orders finite scores from high to low; both zeros are equal.
pub(super) fn descending(a: f64, b: f64) -> std::cmp::Ordering {
    b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal)
}

/// Matches detections, given by descending score, with the instances of an image. `ious` has one
/// row per detection and one column per instance.
pub(super) fn match_area(
    ious: &[Vec<f64>],
    instances: &[Instance],
    detection_areas: &[f64],
    range: [f64; 2],
) -> AreaMatches {
    let outside = |area: f64| area < range[0] || area > range[1];
    let ignored: Vec<bool> =
        instances.iter().map(|instance| instance.crowd || outside(instance.area)).collect();
    // Instances that count are tried first.
    let mut order: Vec<usize> = (0..instances.len()).collect();
    order.sort_by_key(|&index| ignored[index]);
    let mut matches = AreaMatches {
        hits: vec![0; ious.len()],
        alarms: vec![0; ious.len()],
        positives: ignored.iter().filter(|ignored| !**ignored).count(),
    };
    for index in 0..THRESHOLDS {
        let mut taken = vec![false; instances.len()];
        for (detection, row) in ious.iter().enumerate() {
            let free = |index: &usize| !taken[*index] || instances[*index].crowd;
            let best = best(row, order.iter().copied().filter(free), &ignored, threshold(index));
            let ignore = match best {
                Some(best) => ignored[best],
                None => outside(detection_areas[detection]),
            };
            if let Some(best) = best {
                taken[best] = true;
            }
            let bit = u16::from(!ignore) << index;
            let list = if best.is_some() { &mut matches.hits } else { &mut matches.alarms };
            list[detection] |= bit;
        }
    }
    matches
}

/// Returns the instance with the largest overlap of at least `threshold`, and the last one among
/// equals. An ignored instance is returned only if no other reaches the threshold; `candidates`
/// must list ignored instances last.
fn best(
    ious: &[f64],
    candidates: impl Iterator<Item = usize>,
    ignored: &[bool],
    threshold: f64,
) -> Option<usize> {
    let mut best = None;
    let mut least = threshold.min(1.0 - 1e-10);
    for candidate in candidates {
        if ignored[candidate] && best.is_some_and(|best: usize| !ignored[best]) {
            break;
        }
        if ious[candidate] >= least {
            least = ious[candidate];
            best = Some(candidate);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_linspace() {
        let found: Vec<f64> = (0..THRESHOLDS).map(threshold).collect();
        let expected = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{found:?}");
        assert_eq!((found[0], found[5], found[9]), (0.5, 0.75, 0.95));
    }

    #[test]
    fn each_instance_is_found_once_but_a_crowd_often() {
        let instance = |crowd| Instance { area: 100.0, crowd };
        let all = [0.0, 1e10];
        let ious = vec![vec![0.6, 0.9], vec![0.58, 0.8], vec![0.1, 0.7]];
        let matches = match_area(&ious, &[instance(false), instance(true)], &[100.0; 3], all);
        assert_eq!(matches.positives, 1);
        // 0.6 reaches three thresholds. Above them, the detection hits the crowd, which does not
        // count.
        assert_eq!(matches.hits, [0b111, 0, 0]);
        let above = |index: usize| 0x3ff & !((1 << index) - 1);
        assert_eq!(matches.alarms, [above(9), above(7), above(5)]);
    }

    #[test]
    fn what_is_outside_the_range_is_neither_hit_nor_alarm() {
        let instances = [Instance { area: 5000.0, crowd: false }];
        let ious = vec![vec![1.0], vec![0.0], vec![0.0]];
        let matches = match_area(&ious, &instances, &[10.0, 10.0, 5000.0], [0.0, 1024.0]);
        assert_eq!((matches.positives, matches.hits), (0, vec![0; 3]));
        assert_eq!(matches.alarms, [0, 0x3ff, 0]);
    }
}
