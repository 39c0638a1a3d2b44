//! Weighted k-nearest-neighbor classification.

use std::collections::BTreeSet;

use serde::Serialize;
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, SingleProcess};

use crate::error::{Error, Result};
use crate::features::{FeatureSet, unit_rows};
use crate::gather::{numbers, share};
use crate::labeled::{Labeled, comparable};
use crate::nearest::{KEY_ROWS_GPU, Neighbors, QUERY_ROWS, blocks, nearest_of};

/// Number of training rows prepared at once on a CPU: 100 MB at a width of 384.
const TRAIN_ROWS_CPU: i64 = 64 << 10;

/// Settings of k-NN classification.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KnnConfig {
    /// Numbers of neighbors; 10, 20, 100, and 200 in DINO, which reports 20.
    pub k: Vec<usize>,
    /// Temperature of the weights `exp(similarity / temperature)`; 0.07 in DINO.
    pub temperature: f64,
    /// Device of the search.
    #[serde(skip)]
    pub device: Device,
}

impl Default for KnnConfig {
    fn default() -> Self {
        Self { k: vec![10, 20, 100, 200], temperature: 0.07, device: Device::Cpu }
    }
}

/// Accuracy for one value of `k`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KnnScore {
    /// Requested number of neighbors.
    pub k: usize,
    /// Number of neighbors used: `k`, or all training images if there are fewer.
    pub k_used: usize,
    /// Fraction of test images whose class has the highest score, 0-1.
    pub top1: f64,
    /// Fraction of test images whose class is among the `min(5, k)` highest scores, 0-1.
    pub top5: f64,
}

/// The result of [`knn`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct KnnResult {
    /// One score per `k`, in the order of the request.
    pub scores: Vec<KnnScore>,
    /// Temperature of the weights.
    pub temperature: f64,
    /// Number of labeled training images.
    pub num_train: usize,
    /// Number of labeled test images.
    pub num_test: usize,
    /// Number of classes among the training images.
    pub classes: usize,
    /// Notes on how to read the numbers, such as reduced `k` or ignored images.
    pub notes: Vec<String>,
}

impl KnnResult {
    /// Returns the top-1 accuracy for the first `k`, 0-1, or NaN if there are no scores.
    pub fn top1(&self) -> f64 {
        self.scores.first().map_or(f64::NAN, |score| score.top1)
    }
}

/// Classifies each test image by its `k` nearest training images.
///
/// Features are scaled to norm 1. Neighbor `i` with cosine similarity `s_i` votes for its class
/// with weight `exp(s_i / temperature)`; the class with the largest sum wins, and the lower label
/// wins a tie. The search is exact and runs on `config.device`. Features are moved there and
/// compared in blocks, which bounds memory.
///
/// Classes are matched by name if both sets have names, and by number otherwise. Images without a
/// label are ignored and noted. Test images of a class without training images count as wrong, and
/// are noted.
///
/// # Errors
/// Returns an error if there is no `k`, a `k` is 0, or the temperature is not above 0; if a set has
/// no labels, all training images belong to one class, the training set does not name a class of
/// the test set, or no test image is of a class with training images; or if features differ in
/// width or are not finite.
///
/// # Source
/// DINO's eval_knn.py at 7c446df.
pub fn knn(train: &FeatureSet, test: &FeatureSet, config: &KnnConfig) -> Result<KnnResult> {
    knn_shared(train, test, config, &SingleProcess)
}

/// [`knn`] for several processes, each of which classifies its share of the test images. All of
/// them must pass the same features, and get the same result.
///
/// # Errors
/// Fails like [`knn`], and in every process if one fails.
pub fn knn_shared(
    train: &FeatureSet,
    test: &FeatureSet,
    config: &KnnConfig,
    processes: &dyn Collective,
) -> Result<KnnResult> {
    check_config(config)?;
    let mut notes = Vec::new();
    let (train, test) = comparable(train, test, &mut notes)?;
    let num_train = train.labels.len();
    for &k in config.k.iter().filter(|&&k| k > num_train) {
        notes.push(format!(
            "k = {k} is more than the {num_train} training images: all of them are neighbors"
        ));
    }
    let own = test.range(share(test.labels.len(), processes));
    let own = correct(&train, &own, config).map(|counts| counts.concat());
    let mut counts = vec![[0; 2]; config.k.len()];
    for own in numbers(own, processes)? {
        for (sum, own) in counts.iter_mut().zip(own.chunks_exact(2)) {
            *sum = [sum[0] + own[0], sum[1] + own[1]];
        }
    }
    Ok(KnnResult {
        scores: scores(&train, &test, config, &counts),
        temperature: config.temperature,
        num_train,
        num_test: test.labels.len(),
        classes: train.labels.iter().collect::<BTreeSet<_>>().len(),
        notes,
    })
}

/// Classifies labeled test images by labeled training images, and returns a score for each `k`.
pub(crate) fn classify(
    train: &Labeled,
    test: &Labeled,
    config: &KnnConfig,
) -> Result<Vec<KnnScore>> {
    Ok(scores(train, test, config, &correct(train, test, config)?))
}

/// Converts the counts of [`correct`] to a score for each `k`.
fn scores(
    train: &Labeled,
    test: &Labeled,
    config: &KnnConfig,
    correct: &[[u64; 2]],
) -> Vec<KnnScore> {
    let share = |count: u64| count as f64 / test.labels.len() as f64;
    let score = |(&k, &[top1, top5]): (&usize, &[u64; 2])| {
        let k_used = k.min(train.labels.len());
        KnnScore { k, k_used, top1: share(top1), top5: share(top5) }
    };
    config.k.iter().zip(correct).map(score).collect()
}

/// Returns, for each `k`, the number of test images whose class ranks first, and among the first
/// five.
fn correct(train: &Labeled, test: &Labeled, config: &KnnConfig) -> Result<Vec<[u64; 2]>> {
    let k_used: Vec<usize> = config.k.iter().map(|&k| k.min(train.labels.len())).collect();
    let search = Search {
        labels: train.label_tensor().to_device(config.device),
        classes: train.labels.iter().max().map_or(0, |&label| i64::from(label) + 1),
        train: train.features.shallow_clone(),
        temperature: config.temperature,
        k: &k_used,
        device: config.device,
    };
    let train_rows = if config.device == Device::Cpu { TRAIN_ROWS_CPU } else { KEY_ROWS_GPU };
    let test_labels = test.label_tensor().to_device(config.device);
    search.run(&test.features, &test_labels, [train_rows, QUERY_ROWS])
}

/// The training set of a search, with its settings.
struct Search<'a> {
    train: Tensor,  // [n, D]
    labels: Tensor, // [n]
    classes: i64,   // K
    temperature: f64,
    k: &'a [usize],
    device: Device,
}

impl Search<'_> {
    /// Returns, for each `k`, the number of test rows whose class ranks first, and among the first
    /// five. `block` is the number of training and of test rows compared at once.
    fn run(&self, test: &Tensor, labels: &Tensor, block: [i64; 2]) -> Result<Vec<[u64; 2]>> {
        let mut found: Vec<Neighbors> = Vec::new();
        for (start, train) in blocks(&self.train, block[0]) {
            let train = self.prepared(&train);
            for (i, (_, test)) in blocks(test, block[1]).enumerate() {
                let mut new = nearest_of(&self.prepared(&test), &train, None, self.most())?;
                new.indices += start;
                match found.get_mut(i) {
                    Some(so_far) => *so_far = so_far.merged(&new, self.most()),
                    None => found.push(new),
                }
            }
        }
        let mut correct = vec![[0; 2]; self.k.len()];
        for (nearest, (_, labels)) in found.iter().zip(blocks(labels, block[1])) {
            for (sum, [top1, top5]) in correct.iter_mut().zip(self.correct(nearest, &labels)) {
                *sum = [sum[0] + top1, sum[1] + top5];
            }
        }
        Ok(correct)
    }

    /// Returns the largest number of neighbors.
    fn most(&self) -> i64 {
        self.k.iter().copied().max().unwrap_or(1) as i64
    }

    /// Moves rows `[b, D]` to the device in fp32, and scales them to norm 1.
    fn prepared(&self, rows: &Tensor) -> Tensor {
        unit_rows(&rows.to_device(self.device).to_kind(Kind::Float))
    }

    /// Counts the test rows of `nearest` as [`Self::run`] does.
    fn correct(&self, nearest: &Neighbors, labels: &Tensor) -> Vec<[u64; 2]> {
        let Neighbors { similarities, indices } = nearest;
        let votes = self.labels.index_select(0, &indices.flatten(0, -1)).view_as(indices); // -> [b, k]
        // Similarities are taken relative to the nearest neighbor. This only scales all weights by
        // a common factor, and avoids overflow at any temperature.
        let weights = ((similarities - similarities.narrow(1, 0, 1)) / self.temperature).exp();
        self.k.iter().map(|&k| self.hits(&votes, &weights, labels, k as i64)).collect()
    }

    fn hits(&self, votes: &Tensor, weights: &Tensor, labels: &Tensor, k: i64) -> [u64; 2] {
        let zeros = Tensor::zeros([votes.size()[0], self.classes], (Kind::Float, votes.device()));
        let (votes, weights) = (votes.narrow(1, 0, k), weights.narrow(1, 0, k));
        let scores = zeros.scatter_add(1, &votes, &weights); // -> [b, K]
        let (_, ranking) = scores.sort_stable(true, 1, true); // lower label first on a tie
        let hit = ranking.eq_tensor(&labels.unsqueeze(1)); // -> [b, K]
        let within = |best: i64| {
            let best = best.min(self.classes);
            hit.narrow(1, 0, best).sum(Kind::Int64).int64_value(&[]) as u64 // sync
        };
        [within(1), within(k.min(5))]
    }
}

/// Checks the values.
pub(crate) fn check_config(config: &KnnConfig) -> Result<()> {
    let setting = |key, problem: String| Err(Error::Setting { key, problem });
    if config.k.is_empty() || config.k.contains(&0) {
        return setting("k", format!("needs numbers of at least 1 (got {:?})", config.k));
    }
    if config.temperature.is_nan() || config.temperature <= 0.0 {
        return setting(
            "temperature",
            format!("must be greater than 0 (got {})", config.temperature),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_do_not_change_the_result() {
        let classes = 7;
        let at = |n: i64| Tensor::arange(n, (Kind::Float, Device::Cpu));
        let mix = |n: i64, scale: f64| (at(n * 9) * scale).sin().view([n, 9]) + 0.1;
        let label = |n: i64| Tensor::arange(n, (Kind::Int64, Device::Cpu)).remainder(classes);
        let search = Search {
            train: mix(120, 1.7),
            labels: label(120),
            classes,
            temperature: 0.07,
            k: &[1, 6, 50],
            device: Device::Cpu,
        };
        let (test, labels) = (mix(53, 2.3), label(53));
        let whole = search.run(&test, &labels, [120, 53]).unwrap();
        assert!(whole.iter().all(|&[top1, top5]| top1 > 0 && top1 < 53 && top5 <= 53), "{whole:?}");
        for block in [[120, 1], [120, 7], [7, 52], [1, 53], [119, 20], [30, 30]] {
            assert_eq!(search.run(&test, &labels, block).unwrap(), whole, "blocks of {block:?}");
        }
    }
}
