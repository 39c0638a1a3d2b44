//! Agreement of predicted pixel classes with the true ones.

use data::dense::IGNORE;
use serde::Serialize;
use torch_ext::Collective;

use crate::error::{Error, Result};
use crate::gather::{agreed, numbers};

/// The confusion matrix: pixel counts by true and predicted class, over all images of a set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[K, K]`: true class by predicted class.
    counts: Vec<i64>,
}

/// Scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ClassScore {
    /// Intersection over union, 0-1; `None` if the class is neither present nor predicted.
    pub iou: Option<f64>,
    /// Fraction of the pixels of this class that were predicted as such, 0-1; `None` if there are
    /// none.
    pub accuracy: Option<f64>,
    /// Number of pixels of this class.
    pub pixels: i64,
}

/// Scores of a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SegmentationScore {
    /// Mean IoU of the classes that have one, 0-1.
    pub miou: f64,
    /// Mean accuracy of the classes that have one, 0-1.
    pub mean_accuracy: f64,
    /// Fraction of all pixels whose class was predicted correctly, 0-1.
    pub pixel_accuracy: f64,
    /// Scores of each class.
    pub per_class: Vec<ClassScore>,
    /// Number of pixels that are not ignored.
    pub pixels: i64,
}

impl SegmentationScore {
    /// Returns the scores by name: first the means, then the IoU of each class that has one.
    pub fn named(&self, name: impl Fn(usize) -> String) -> Vec<(String, f64)> {
        let means = [
            ("miou", self.miou),
            ("mean_accuracy", self.mean_accuracy),
            ("pixel_accuracy", self.pixel_accuracy),
        ];
        let of_class = |(class, score): (usize, &ClassScore)| {
            score.iou.map(|iou| (format!("iou {}", name(class)), iou))
        };
        let means = means.map(|(name, value)| (name.to_owned(), value)).into_iter();
        means.chain(self.per_class.iter().enumerate().filter_map(of_class)).collect()
    }
}

impl Confusion {
    /// Creates a matrix of zeros.
    pub fn new(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// Counts the pixels of an image, except those whose true class is [`IGNORE`].
    ///
    /// # Errors
    /// Returns an error, and counts nothing, if the lengths differ or a class is out of range.
    pub fn add(&mut self, truth: &[u8], predicted: &[u8]) -> Result<()> {
        let classes = self.classes;
        let valid = |class: u8| usize::from(class) < classes;
        let fits = truth.len() == predicted.len()
            && truth.iter().all(|&class| class == IGNORE || valid(class))
            && predicted.iter().all(|&class| valid(class));
        if !fits {
            let expected = "that of the true classes, with classes below K";
            let got = vec![truth.len() as i64, predicted.len() as i64];
            return Err(Error::Shape { what: "predicted classes", expected, got });
        }
        for (&truth, &predicted) in truth.iter().zip(predicted) {
            if truth != IGNORE {
                self.counts[usize::from(truth) * classes + usize::from(predicted)] += 1;
            }
        }
        Ok(())
    }

    /// Sums the counts over several processes, which must all pass the same number of matrices of
    /// the same size.
    ///
    /// # Errors
    /// Returns an error in every process if `own` is an error in any of them.
    pub(super) fn sums(own: Result<Vec<Self>>, processes: &dyn Collective) -> Result<Vec<Self>> {
        let own = agreed(own, processes)?;
        let counts = own.iter().flat_map(|one| one.counts.iter().map(|&count| count as u64));
        let all = numbers(Ok(counts.collect()), processes)?;
        let mut sums = own;
        for (i, count) in sums.iter_mut().flat_map(|one| &mut one.counts).enumerate() {
            *count = all.iter().filter_map(|counts| counts.get(i)).map(|&count| count as i64).sum();
        }
        Ok(sums)
    }

    /// Returns the number of pixels of class `truth` that were predicted as `predicted`.
    pub fn count(&self, truth: usize, predicted: usize) -> i64 {
        self.counts.get(truth * self.classes + predicted).copied().unwrap_or(0)
    }

    /// Computes the scores.
    ///
    /// # Errors
    /// Returns an error if no pixel was counted.
    pub fn score(&self) -> Result<SegmentationScore> {
        let total: i64 = self.counts.iter().sum();
        if total == 0 {
            return Err(Error::NothingToScore);
        }
        let of_class = |class: usize| {
            let hits = self.count(class, class);
            let pixels: i64 = (0..self.classes).map(|other| self.count(class, other)).sum();
            let predicted: i64 = (0..self.classes).map(|other| self.count(other, class)).sum();
            let share = |whole: i64| (whole > 0).then(|| hits as f64 / whole as f64);
            ClassScore { iou: share(pixels + predicted - hits), accuracy: share(pixels), pixels }
        };
        let per_class: Vec<ClassScore> = (0..self.classes).map(of_class).collect();
        let mean = |of: fn(&ClassScore) -> Option<f64>| {
            let values: Vec<f64> = per_class.iter().filter_map(of).collect();
            values.iter().sum::<f64>() / values.len() as f64
        };
        let hits: i64 = (0..self.classes).map(|class| self.count(class, class)).sum();
        Ok(SegmentationScore {
            miou: mean(|class| class.iou),
            mean_accuracy: mean(|class| class.accuracy),
            pixel_accuracy: hits as f64 / total as f64,
            per_class,
            pixels: total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_by_hand() {
        let mut confusion = Confusion::new(4);
        // Class 3 is neither present nor predicted; class 2 is predicted but not present.
        confusion.add(&[0, 0, 0, 1, 1, IGNORE], &[0, 0, 1, 1, 2, 3]).unwrap();
        let score = confusion.score().unwrap();
        let iou: Vec<_> = score.per_class.iter().map(|class| class.iou).collect();
        assert_eq!(iou, [Some(2.0 / 3.0), Some(1.0 / 3.0), Some(0.0), None]);
        assert!((score.miou - 1.0 / 3.0).abs() < 1e-12);
        assert!((score.mean_accuracy - (2.0 / 3.0 + 0.5) / 2.0).abs() < 1e-12);
        assert!((score.pixel_accuracy - 0.6).abs() < 1e-12);
        assert_eq!(score.pixels, 5);
    }

    #[test]
    fn nothing_is_counted_of_what_does_not_fit() {
        let mut confusion = Confusion::new(2);
        for (truth, predicted) in
            [(vec![0, 2], vec![0, 0]), (vec![0, 1], vec![0, 2]), (vec![0], vec![0, 1])]
        {
            assert!(confusion.add(&truth, &predicted).is_err(), "{truth:?} {predicted:?}");
        }
        assert!(confusion.add(&[IGNORE, IGNORE], &[0, 1]).is_ok());
        assert!(matches!(confusion.score(), Err(Error::NothingToScore)));
    }
}
