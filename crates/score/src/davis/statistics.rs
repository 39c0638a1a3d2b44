//! Statistics over the frames of a track.

use serde::{Deserialize, Serialize};

/// Mean, recall, and decay of a measure over frames or objects.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// The mean.
    pub mean: f64,
    /// The share of frames with a value above 0.5.
    pub recall: f64,
    /// The mean of the first quarter of the frames minus that of the last quarter.
    pub decay: f64,
}

impl Statistics {
    /// Computes the statistics of these frames, in their order; returns `None` if there are none.
    #[must_use]
    pub fn of_frames(values: &[f64]) -> Option<Self> {
        let mean = mean(values.iter().copied())?;
        let above = values.iter().filter(|value| **value > 0.5).count();
        let recall = above as f64 / values.len() as f64;
        // Adjacent quarters share a frame.
        let last = (values.len() - 1) as f64;
        let border = |quarter: u8| (last * f64::from(quarter) / 4.0 + 1.0 + 1e-10).round() - 1.0;
        let part = |from: u8| {
            let (first, last) = (border(from) as usize, border(from + 1) as usize);
            values.get(first..=last).and_then(|values| self::mean(values.iter().copied()))
        };
        Some(Self { mean, recall, decay: part(0)? - part(3)? })
    }

    /// Returns the mean of each statistic; `None` for an empty list.
    #[must_use]
    pub fn mean_of<'a>(list: impl Iterator<Item = &'a Self> + Clone) -> Option<Self> {
        Some(Self {
            mean: mean(list.clone().map(|each| each.mean))?,
            recall: mean(list.clone().map(|each| each.recall))?,
            decay: mean(list.map(|each| each.decay))?,
        })
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0_usize), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decay_compares_the_first_quarter_with_the_last() {
        let values = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2];
        let found = Statistics::of_frames(&values).unwrap();
        assert!((found.mean - 0.55).abs() < 1e-12 && found.recall == 0.5, "{found:?}");
        // Borders 1, 2.75, 4.5, 6.25, 8: frames 1 to 3, and 6 to 8.
        assert!((found.decay - 0.5).abs() < 1e-12, "{found:?}");
        let one = Statistics::of_frames(&[0.7]).unwrap();
        assert_eq!((one.mean, one.recall, one.decay), (0.7, 1.0, 0.0));
        assert_eq!(Statistics::of_frames(&[]), None);
    }

    #[test]
    fn long_tracks_have_quarters_too() {
        let values: Vec<f64> = (0..1001).map(|index| 1.0 - f64::from(index) / 1000.0).collect();
        let found = Statistics::of_frames(&values).unwrap();
        assert!((found.decay - 0.75).abs() < 1e-9, "{found:?}");
    }
}
