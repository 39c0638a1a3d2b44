//! Logistic regression on features, following DINOv2's protocol. Its results do not depend on a
//! learning rate or a number of epochs.

mod config;
mod curvature;
mod few_shot;
mod lbfgs;
mod model;
mod problem;

use std::collections::BTreeSet;
use std::rc::Rc;

use serde::Serialize;
use tch::{Device, Kind, Tensor};
use torch_ext::{Collective, SingleProcess};

use crate::error::{Error, Result};
use crate::features::FeatureSet;
use crate::gather::{agreed, numbers, share};
use crate::labeled::{Labeled, comparable};
use crate::record::Record;
pub use config::LogisticConfig;
pub use few_shot::{FEW_SHOT_C, FewShotAccuracy, few_shot_logistic, fit_without_bias};
pub use model::LogisticModel;
use problem::{Problem, Solution};

/// The result of [`logistic`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogisticResult {
    /// Fraction of test images whose class has the highest score, 0-1.
    pub top1: f64,
    /// Fraction of test images whose class is among the five highest scores, 0-1.
    pub top5: f64,
    /// Mean over the classes of the fraction of their test images that are classified correctly,
    /// 0-1.
    pub mean_class_accuracy: f64,
    /// The chosen `C`.
    pub c: f64,
    /// Top-1 accuracy on the held-out training images for each candidate, 0-1.
    pub held_out_top1: Vec<f64>,
    /// Number of labeled training images.
    pub num_train: usize,
    /// Number of labeled test images.
    pub num_test: usize,
    /// Number of classes among the training images.
    pub classes: usize,
    /// Notes on how to read the numbers.
    pub notes: Vec<String>,
}

impl LogisticResult {
    /// Adds the scores, chosen `C`, and notes to a record, and the scores of the same network
    /// untrained.
    pub fn describe(&self, untrained: &Self, record: &mut Record) {
        for (name, trained, untrained) in [
            ("top1", self.top1, untrained.top1),
            ("top5", self.top5, untrained.top5),
            ("mean_class_accuracy", self.mean_class_accuracy, untrained.mean_class_accuracy),
        ] {
            record.score(name, trained);
            record.baseline("untrained", name, untrained);
        }
        record.chosen.insert("c".to_owned(), rounded(self.c).into());
        self.notes.iter().for_each(|text| record.note(text));
    }
}

/// Rounds a number to three significant digits, for display.
pub(crate) fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// Minimizes `C * sum(cross-entropy) + |W|^2 / 2` with L-BFGS, which starts in fp32 and converges in
/// fp64. The bias is not penalized.
///
/// # Shapes
/// - `features`: `[n, D]`
/// - `labels`: `[n]` int64, from 0 to `classes - 1`
///
/// # Errors
/// Returns an error if `c` is not above 0, or libtorch fails.
pub fn fit(
    features: &Tensor,
    labels: &Tensor,
    classes: i64,
    c: f64,
    config: &LogisticConfig,
) -> Result<LogisticModel> {
    let config = LogisticConfig { c: vec![c], ..config.clone() };
    check(&config)?;
    let problem = Problem::new(features, labels, classes, config.device)?;
    Ok(problem.solve(c, None, &config)?.model)
}

/// Features and their classes.
pub(crate) struct Examples<'a> {
    /// `[n, D]`
    pub(crate) features: &'a Tensor,
    /// `[n]` int64, from 0 to `classes - 1`
    pub(crate) labels: &'a Tensor,
}

impl Examples<'_> {
    fn problem(&self, classes: i64, config: &LogisticConfig) -> Result<Problem> {
        Problem::new(self.features, self.labels, classes, config.device)
    }
}

/// Fits `some` examples for each `C` of the settings, then `all` examples with the `C` of the
/// highest score, the first one among equals. Returns the index of that `C` and the final model.
/// `score` is called with the index of each `C` and its model, in ascending order of `C`. Each fit
/// starts from the solution of another one, which takes far fewer iterations than fitting from
/// scratch.
pub(crate) fn fit_best(
    some: &Examples<'_>,
    all: &Examples<'_>,
    classes: i64,
    config: &LogisticConfig,
    score: &mut dyn FnMut(usize, &LogisticModel) -> Result<f64>,
) -> Result<(usize, LogisticModel)> {
    check(config)?;
    let mut best: Option<(f64, usize, Rc<Solution>)> = None;
    some.problem(classes, config)?.solve_each(config, &mut |place, solution| {
        let score = score(place, &solution.model)?;
        let better = |(most, first, _): &(f64, usize, _)| {
            score > *most || (score == *most && place < *first)
        };
        if best.as_ref().is_none_or(better) {
            best = Some((score, place, Rc::clone(solution)));
        }
        Ok(())
    })?;
    let place = best.as_ref().map_or(0, |(_, place, _)| *place);
    let start = best.map(|(_, _, solution)| solution);
    let all = all.problem(classes, config)?;
    Ok((place, all.solve(config.c[place], start.as_deref(), config)?.model))
}

/// Classifies the test images by logistic regression. `C` is chosen on a part of the training
/// images, and the regression is then fitted to all of them.
///
/// Classes are matched by name if both sets have names, and by number otherwise. Images without a
/// label are ignored and noted. Test images of a class without training images count as wrong, and
/// are noted.
///
/// # Errors
/// Returns an error if a setting is out of range; if a set has no labels, all training images
/// belong to one class, the training set does not name a class of the test set, or no test image is
/// of a class with training images; if features differ in width or are not finite; or if there are
/// too few training images to choose `C`.
///
/// # Source
/// DINOv2's eval/log_regression.py at b8931f7, whose images are resized to 224 pixels before a
/// center crop of 224. Here, the given sets determine the preprocessing.
pub fn logistic(
    train: &FeatureSet,
    test: &FeatureSet,
    config: &LogisticConfig,
) -> Result<LogisticResult> {
    logistic_shared(train, test, config, &SingleProcess)
}

/// [`logistic`] for several processes, which share the candidates for `C`. All of them must pass
/// the same features, and get the same result.
///
/// # Errors
/// Fails like [`logistic`], and in every process if one fails.
pub fn logistic_shared(
    train: &FeatureSet,
    test: &FeatureSet,
    config: &LogisticConfig,
    processes: &dyn Collective,
) -> Result<LogisticResult> {
    check(config)?;
    let mut notes = Vec::new();
    let (train, test) = comparable(train, test, &mut notes)?;
    let num_classes = train.labels.iter().collect::<BTreeSet<_>>().len();
    let classes = train.labels.iter().max().map_or(0, |&label| i64::from(label) + 1);
    let (held_out_top1, c) = choose(&train, classes, config, processes, &mut notes)?;
    let problem = Problem::new(&train.features, &train.label_tensor(), classes, config.device);
    let solution = problem.and_then(|problem| problem.solve(c, None, config));
    let model = agreed(solution, processes)?.model;
    if !model.converged {
        notes.push(format!(
            "the fit at C = {c:.1e} did not converge in {} iterations",
            model.iterations
        ));
    }
    let accuracy = Accuracy::of(&model, &test, classes, config.device);
    Ok(LogisticResult {
        top1: accuracy.top1,
        top5: accuracy.top5,
        mean_class_accuracy: accuracy.mean_of_classes,
        c,
        held_out_top1,
        num_train: train.labels.len(),
        num_test: test.labels.len(),
        classes: num_classes,
        notes,
    })
}

fn check(config: &LogisticConfig) -> Result<()> {
    let setting = |key, problem: String| Err(Error::Setting { key, problem });
    if config.c.is_empty() || config.c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
        return setting("c", format!("needs numbers greater than 0 (got {:?})", config.c));
    }
    if !(0.0..1.0).contains(&config.held_out) || (config.held_out == 0.0 && config.c.len() > 1) {
        let got = config.held_out;
        return setting("held_out", format!("must be greater than 0 and less than 1 (got {got})"));
    }
    Ok(())
}

/// Returns the top-1 accuracy of each candidate on the held-out images, and the best candidate, the
/// smallest one among equals.
fn choose(
    train: &Labeled,
    classes: i64,
    config: &LogisticConfig,
    processes: &dyn Collective,
    notes: &mut Vec<String>,
) -> Result<(Vec<f64>, f64)> {
    if let [c] = config.c[..] {
        return Ok((Vec::new(), c));
    }
    let mut order: Vec<usize> = (0..config.c.len()).collect();
    order.sort_by(|&a, &b| config.c[a].total_cmp(&config.c[b]));
    let own = &order[share(order.len(), processes)];
    let tried = numbers(try_candidates(train, classes, config, own), processes)?.concat();
    let (mut top1, mut stopped) = (vec![0.0; config.c.len()], Vec::new());
    for (&i, tried) in order.iter().zip(tried.chunks_exact(2)) {
        top1[i] = f64::from_bits(tried[0]);
        if tried[1] == 0 {
            stopped.push(format!("{:.1e}", config.c[i]));
        }
    }
    if !stopped.is_empty() {
        let (limit, stopped) = (config.max_iterations, stopped.join(", "));
        notes.push(format!("fits that did not converge in {limit} iterations: C = {stopped}"));
    }
    let best = top1.iter().copied().fold(f64::MIN, f64::max);
    let candidates = config.c.iter().zip(&top1).filter(|&(_, &score)| score == best);
    let c = candidates.map(|(&c, _)| c).fold(f64::INFINITY, f64::min);
    Ok((top1, c))
}

/// Fits some candidates in ascending order; each fit starts from the previous solution. Returns two
/// numbers for each: the bits of its top-1 accuracy on the held-out images, and whether it
/// converged.
fn try_candidates(
    train: &Labeled,
    classes: i64,
    config: &LogisticConfig,
    candidates: &[usize],
) -> Result<Vec<u64>> {
    let [kept, held_out] = train.split(config.held_out, config.seed);
    let (kept, held_out) = (train.chosen(&kept)?, train.chosen(&held_out)?);
    if held_out.labels.is_empty() || kept.labels.iter().collect::<BTreeSet<_>>().len() < 2 {
        return Err(Error::TooFewToChoose { images: train.labels.len() });
    }
    let problem = Problem::new(&kept.features, &kept.label_tensor(), classes, config.device)?;
    let mut own = config.clone();
    own.c = candidates.iter().map(|&i| config.c[i]).collect();
    let mut tried = Vec::new();
    problem.solve_each(&own, &mut |_, solution| {
        let top1 = Accuracy::of(&solution.model, &held_out, classes, config.device).top1;
        tried.extend([top1.to_bits(), u64::from(solution.model.converged)]);
        Ok(())
    })?;
    Ok(tried)
}

/// The accuracy of a model on a set of images.
struct Accuracy {
    top1: f64,
    top5: f64,
    mean_of_classes: f64,
}

impl Accuracy {
    fn of(model: &LogisticModel, set: &Labeled, classes: i64, device: Device) -> Self {
        let labels = set.label_tensor().to_device(device);
        let scores = model.scores(&set.features.to_device(device)); // [n, D] -> [n, K]
        let (_, ranking) = scores.sort_stable(true, 1, true); // lower label first on a tie
        let hit = ranking.eq_tensor(&labels.unsqueeze(1)); // [n, K]
        let within =
            |best: i64| hit.narrow(1, 0, best.min(classes)).sum_dim_intlist(1, false, None);
        let mean = |hits: &Tensor| hits.to_kind(Kind::Double).mean(None).double_value(&[]);
        let first = within(1).to_kind(Kind::Double); // [n]
        let ones = first.ones_like();
        // A test image of a class without training images has a label beyond the scores.
        let all = labels.max().int64_value(&[]).max(classes - 1) + 1;
        let zeros = Tensor::zeros([all], (Kind::Double, device));
        let (correct, count) =
            (zeros.index_add(0, &labels, &first), zeros.index_add(0, &labels, &ones));
        let present = count.gt(0.0);
        let of_classes = correct.masked_select(&present) / count.masked_select(&present);
        Self { top1: mean(&first), top5: mean(&within(5)), mean_of_classes: mean(&of_classes) }
    }
}
