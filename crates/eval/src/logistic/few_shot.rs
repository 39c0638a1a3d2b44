//! Logistic regression with few labeled training images per class, drawn several times.

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::config::LogisticConfig;
use super::problem::Problem;
use super::{Accuracy, LogisticModel, check};
use crate::error::Result;
use crate::features::{FeatureSet, unit_rows};
use crate::few_shot::{FewShotConfig, MeanStd, subset};
use crate::labeled::{Labeled, comparable};
use crate::record::Record;

/// `C` of few-shot logistic regression, the inverse of the penalty of 0.00025 in MSN.
pub const FEW_SHOT_C: f64 = 4000.0;

/// Accuracy for a number of training images per class.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct FewShotAccuracy {
    /// Number of training images per class.
    pub per_class: usize,
    /// Mean top-1 accuracy over the tries, 0-1.
    pub top1: f64,
    /// Standard deviation of the top-1 accuracy over the tries; 0 for one try.
    pub top1_std: f64,
    /// Mean top-5 accuracy over the tries, 0-1.
    pub top5: f64,
    /// Number of tries whose regression did not converge.
    pub stopped: usize,
}

impl FewShotAccuracy {
    /// Adds scores to a record, as those of the network or of a baseline, and a note if fits did not
    /// converge.
    pub fn describe(scores: &[Self], baseline: Option<&str>, record: &mut Record) {
        for score in scores {
            for (part, value) in
                [("top1", score.top1), ("top1_std", score.top1_std), ("top5", score.top5)]
            {
                let name = format!("shots{}_{part}", score.per_class);
                match baseline {
                    Some(of) => record.baseline(of, &name, value),
                    None => record.score(&name, value),
                }
            }
            if score.stopped > 0 {
                let (stopped, shots) = (score.stopped, score.per_class);
                record.note(&format!(
                    "{stopped} of the fits to {shots} images per class stopped early"
                ));
            }
        }
    }
}

/// Classifies the test images by logistic regression on random subsets of the training images.
/// Returns a score for each number of images per class.
///
/// The mean over its dimensions is subtracted from each feature, which is then scaled to norm 1. The
/// regression has no bias, and its `C` is [`FEW_SHOT_C`], because there are too few images to
/// choose one.
///
/// # Errors
/// Fails like [`super::logistic`], and if a number of images or the number of tries is 0.
///
/// # Source
/// MSN's logistic_eval.py at 5474d5f (Assran et al., 2022), with the subsets of DINOv2's
/// eval/knn.py. MSN publishes lists of its subsets of ImageNet, which can be given as training
/// images.
pub fn few_shot_logistic(
    train: &FeatureSet,
    test: &FeatureSet,
    config: &FewShotConfig,
    device: Device,
) -> Result<Vec<FewShotAccuracy>> {
    config.check()?;
    let (train, test) = comparable(train, test, &mut Vec::new())?;
    let classes = train.labels.iter().max().map_or(0, |&label| i64::from(label) + 1);
    let test = centered_rows(test);
    let mut scores = Vec::new();
    for &per_class in &config.per_class {
        let (mut tries, mut stopped) = (Vec::new(), 0);
        for seed in 0..config.tries {
            // Only these are prepared, because a copy of all images in double precision is large.
            let chosen = centered_rows(train.chosen(&subset(&train, per_class, seed as u64))?);
            let labels = chosen.label_tensor();
            let model = fit_without_bias(&chosen.features, &labels, classes, FEW_SHOT_C, device)?;
            stopped += usize::from(!model.converged);
            tries.push(Accuracy::of(&model, &test, classes, device));
        }
        let MeanStd { mean: top1, std: top1_std } = MeanStd::of(tries.iter().map(|a| a.top1));
        let top5 = MeanStd::of(tries.iter().map(|a| a.top5)).mean;
        scores.push(FewShotAccuracy { per_class, top1, top1_std, top5, stopped });
    }
    Ok(scores)
}

/// [`super::fit`] without a bias. Scores are `features x weight`.
///
/// # Errors
/// Returns an error if `c` is not above 0, or libtorch fails.
pub fn fit_without_bias(
    features: &Tensor,
    labels: &Tensor,
    classes: i64,
    c: f64,
    device: Device,
) -> Result<LogisticModel> {
    let mut config = LogisticConfig::default();
    (config.c, config.device) = (vec![c], device);
    check(&config)?;
    let problem = Problem::without_bias(features, labels, classes, device)?;
    Ok(problem.solve(c, None, &config)?.model)
}

/// Subtracts the mean over its dimensions from each feature, and scales it to norm 1.
fn centered_rows(set: Labeled) -> Labeled {
    let rows = set.features.to_kind(Kind::Double);
    let mean = rows.mean_dim([1].as_slice(), true, Kind::Double); // [n, D] -> [n, 1]
    Labeled { features: unit_rows(&(rows - mean)), labels: set.labels }
}
