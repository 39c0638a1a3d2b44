//! k-NN with few labeled training images per class, drawn several times.

use std::collections::BTreeMap;

use serde::Serialize;
use tch::Tensor;

use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::knn::{KnnConfig, KnnScore, check_config, classify};
use crate::labeled::{Labeled, comparable};
use crate::record::Record;
use crate::torch_random::TorchRandom;

/// Settings of few-shot k-NN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FewShotConfig {
    /// Numbers of training images per class. A class with fewer contributes all of them.
    pub per_class: Vec<usize>,
    /// Number of subsets that are drawn; their seeds are 0, 1, ..
    pub tries: usize,
}

impl FewShotConfig {
    /// Checks that no number is 0.
    pub(crate) fn check(&self) -> Result<()> {
        let setting = |key, problem: &str| Err(Error::Setting { key, problem: problem.to_owned() });
        if self.per_class.contains(&0) {
            return setting("per_class", "every number must be at least 1 (got 0)");
        }
        if self.tries == 0 {
            return setting("tries", "must be at least 1 (got 0)");
        }
        Ok(())
    }
}

/// Accuracy for a number of training images per class and a number of neighbors.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FewShotScore {
    /// Number of training images per class.
    pub per_class: usize,
    /// Requested number of neighbors.
    pub k: usize,
    /// Number of neighbors used, at most the size of a subset.
    pub k_used: usize,
    /// Mean top-1 accuracy over the tries, 0-1.
    pub top1: f64,
    /// Standard deviation of the top-1 accuracy over the tries; 0 for one try.
    pub top1_std: f64,
    /// Mean top-5 accuracy over the tries, 0-1.
    pub top5: f64,
}

impl FewShotScore {
    /// Adds scores to a record, as those of the network or of a baseline.
    pub fn describe(scores: &[Self], baseline: Option<&str>, record: &mut Record) {
        for score in scores {
            let name = format!("shots{}_k{}", score.per_class, score.k);
            for (part, value) in
                [("top1", score.top1), ("top1_std", score.top1_std), ("top5", score.top5)]
            {
                let name = format!("{name}_{part}");
                match baseline {
                    Some(of) => record.baseline(of, &name, value),
                    None => record.score(&name, value),
                }
            }
        }
    }
}

/// Classifies the test images as [`fn@crate::knn`] does, but by random subsets of the training
/// images. Returns scores ordered by the number of images per class, then by `k`.
///
/// # Errors
/// Fails like [`fn@crate::knn`], and if a number of images or the number of tries is 0.
///
/// # Source
/// The options `n-per-class-list` and `n-tries` of DINOv2's eval/knn.py at b8931f7, which draws the
/// same subsets.
pub fn few_shot(
    train: &FeatureSet,
    test: &FeatureSet,
    knn: &KnnConfig,
    config: &FewShotConfig,
) -> Result<Vec<FewShotScore>> {
    check_config(knn)?;
    config.check()?;
    let (train, test) = comparable(train, test, &mut Vec::new())?;
    let mut scores = Vec::new();
    for &per_class in &config.per_class {
        let mut tries = Vec::new();
        for seed in 0..config.tries {
            let rows = subset(&train, per_class, seed as u64);
            tries.push(classify(&train.chosen(&rows)?, &test, knn)?);
        }
        scores.extend((0..knn.k.len()).map(|i| averaged(per_class, &tries, i)));
    }
    Ok(scores)
}

/// Draws the rows of `per_class` images of each class, as PyTorch does after `manual_seed(seed)`.
pub(crate) fn subset(train: &Labeled, per_class: usize, seed: u64) -> Tensor {
    let mut by_class: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
    for (row, &label) in (0..).zip(&train.labels) {
        by_class.entry(label).or_default().push(row);
    }
    let mut random = TorchRandom::new(seed);
    let of_class = |rows: &Vec<i64>| -> Vec<i64> {
        let order = random.permutation(rows.len());
        order.into_iter().take(per_class).map(|i| rows[i as usize]).collect()
    };
    Tensor::from_slice(&by_class.values().flat_map(of_class).collect::<Vec<i64>>())
}

/// Returns the mean and standard deviation of score `i` over all tries.
fn averaged(per_class: usize, tries: &[Vec<KnnScore>], i: usize) -> FewShotScore {
    let of = |value: fn(&KnnScore) -> f64| MeanStd::of(tries.iter().map(|of| value(&of[i])));
    let MeanStd { mean: top1, std: top1_std } = of(|score| score.top1);
    let KnnScore { k, k_used, .. } = tries[0][i];
    FewShotScore { per_class, k, k_used, top1, top1_std, top5: of(|score| score.top5).mean }
}

/// The mean and standard deviation of the scores of several tries.
pub(crate) struct MeanStd {
    pub(crate) mean: f64,
    /// 0 for one try.
    pub(crate) std: f64,
}

impl MeanStd {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let values: Vec<f64> = values.collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        Self { mean, std: (squares / (values.len().max(2) - 1) as f64).sqrt() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(labels: &[u32], offset: f64) -> FeatureSet {
        let values: Vec<f32> = labels
            .iter()
            .zip(0..)
            .flat_map(|(&label, i)| {
                let noise = (f64::from(i) * 1.7 + offset).sin() * 0.6;
                let angle = f64::from(label) + noise;
                [angle.cos() as f32, angle.sin() as f32]
            })
            .collect();
        let features = Tensor::from_slice(&values).view([-1, 2]);
        FeatureSet::new(features, labels.iter().map(|&label| Some(label)).collect())
    }

    fn labels(counts: &[usize]) -> Vec<u32> {
        (0..).zip(counts).flat_map(|(label, &count)| vec![label; count]).collect()
    }

    #[test]
    fn subsets_are_those_of_pytorch() {
        // torch 2.11: manual_seed(1), then randperm(4), randperm(2), and randperm(5), two of each.
        let train = set(&labels(&[4, 2, 5]), 0.0);
        let (train, _) = comparable(&train, &train, &mut Vec::new()).unwrap();
        let rows = Vec::<i64>::try_from(subset(&train, 2, 1)).unwrap();
        assert_eq!(rows, [1, 3, 4, 5, 9, 8]);
        let all = Vec::<i64>::try_from(subset(&train, 9, 1)).unwrap();
        assert_eq!(
            all.iter().collect::<std::collections::BTreeSet<_>>().len(),
            11,
            "a small class gives all it has"
        );
    }

    #[test]
    fn all_images_of_every_class_are_the_whole_set() {
        let (train, test) = (set(&labels(&[7, 5, 9]), 0.0), set(&labels(&[20, 20, 20]), 5.0));
        let knn = KnnConfig { k: vec![1, 5, 40], ..KnnConfig::default() };
        let whole = crate::knn(&train, &test, &knn).unwrap();
        let config = FewShotConfig { per_class: vec![9, 2], tries: 3 };
        let scores = few_shot(&train, &test, &knn, &config).unwrap();
        assert_eq!(scores.len(), 6);
        for (few, whole) in scores.iter().zip(&whole.scores) {
            assert!((few.top1 - whole.top1).abs() < 1e-12 && few.top1_std < 1e-12, "{few:?}");
            assert_eq!((few.per_class, few.k, few.k_used), (9, whole.k, whole.k_used));
        }
        assert_eq!((scores[5].k_used, scores[3].k_used), (6, 1));
        assert!(scores[3].top1_std > 0.0 && scores[3].top1 < 1.0, "tries differ: {scores:?}");
        let one = FewShotConfig { tries: 1, ..config.clone() };
        assert_eq!(few_shot(&train, &test, &knn, &one).unwrap()[4].top1_std, 0.0);
        for wrong in [
            FewShotConfig { per_class: vec![0], tries: 1 },
            FewShotConfig { per_class: vec![1], tries: 0 },
        ] {
            assert!(few_shot(&train, &test, &knn, &wrong).is_err());
        }
    }
}
