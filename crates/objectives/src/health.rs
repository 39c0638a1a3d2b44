//! Detects collapse: measures the signals of a step and judges them in plain words.
//!
//! The signals are not measured in every step, because the effective rank requires an eigenvalue
//! decomposition.

use tch::{Kind, Tensor};

use crate::inputs::Outputs;
use crate::objective::LossOutput;
use crate::{Error, Result};

/// The signals, by the names under which they are logged.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Signals {
    /// Mean standard deviation of the teacher's unit rows over the batch, times the square root of
    /// their width: 1 when they point evenly in all directions, 0 when they are all equal.
    pub feature_std: f64,
    /// Exponential of the entropy of the eigenvalues of the teacher's unit rows: the number of
    /// directions over which they spread. 1 when they are all equal.
    pub effective_rank: f64,
    /// Position of the coding rate between its floor (0) and its ceiling (1).
    pub rate_position: Option<f64>,
    /// Similarity of views.
    pub compression: Option<f64>,
    /// Loss of the class tokens relative to `ln K`, the loss for a teacher with uniform targets.
    pub loss_over_uniform: Option<f64>,
    /// Entropy of the teacher's targets as a fraction of its maximum.
    pub teacher_entropy: Option<f64>,
    /// Entropy of the teacher's mean target as a fraction of its maximum; 0 when all images are
    /// assigned to the same prototype.
    pub entropy_of_mean: Option<f64>,
    /// Whether the batch contains views of a single image only. Their features and targets are
    /// alike in any case, so they do not indicate a collapse.
    pub one_image: bool,
}

impl Signals {
    /// Measures a (micro-)batch. Waits for the device.
    ///
    /// Uses the teacher's class tokens before the head if they are given, otherwise those after
    /// it.
    ///
    /// # Errors
    /// Returns an error if features are not finite.
    pub fn measure(teacher: &Outputs, output: &LossOutput) -> Result<Self> {
        let features = teacher.backbone.as_ref().unwrap_or(&teacher.cls);
        let size = features.size(); // [.., B, D]
        let width = size[features.dim() - 1];
        let rows = features.detach().reshape([-1, width]);
        let (feature_std, effective_rank) = spread(&rows)?;
        let uniform = output.value("loss/uniform");
        let cls = output.value("loss/cls");
        Ok(Self {
            feature_std,
            effective_rank,
            rate_position: output.value("rate/position"),
            compression: output.value("loss/compression"),
            loss_over_uniform: cls.zip(uniform).map(|(loss, uniform)| loss / uniform),
            teacher_entropy: output.value("teacher/entropy"),
            entropy_of_mean: output.value("teacher/entropy_of_mean"),
            one_image: size.iter().rev().nth(1).is_none_or(|&images| images < 2),
        })
    }

    /// Returns the signals that objectives do not log themselves, by metric name.
    pub fn metrics(&self) -> [(&'static str, f64); 2] {
        [("health/feature_std", self.feature_std), ("health/effective_rank", self.effective_rank)]
    }

    /// Describes what has gone wrong; `None` if nothing has.
    pub fn verdict(&self) -> Option<String> {
        let over = |x: Option<f64>, most: f64| x.is_some_and(|x| x > most);
        let under = |x: Option<f64>, least: f64| x.is_some_and(|x| x < least);
        let percent = |x: Option<f64>| 100.0 * x.unwrap_or(f64::NAN);
        if over(self.compression, 0.98) && under(self.rate_position, 0.05) {
            return Some(format!(
                "all images have nearly the same features: different views agree to {:.1}%, and \
                 the coding rate is at its floor ({:.1}% of the way to its ceiling)",
                percent(self.compression),
                percent(self.rate_position)
            ));
        }
        if over(self.loss_over_uniform, 0.99) && over(self.teacher_entropy, 0.99) {
            return Some(format!(
                "the teacher gives all prototypes the same probability: its entropy is {:.1}% of \
                 the maximum, and the loss stays at that of random guessing",
                percent(self.teacher_entropy)
            ));
        }
        if !self.one_image && under(self.entropy_of_mean, 0.02) {
            return Some(format!(
                "the teacher gives all images the same prototype: the entropy of its mean target \
                 is {:.1}% of the maximum",
                percent(self.entropy_of_mean)
            ));
        }
        if !self.one_image && self.effective_rank < 1.1 && self.feature_std < 0.15 {
            return Some(format!(
                "all images have nearly the same features: their effective rank is {:.2}",
                self.effective_rank
            ));
        }
        None
    }
}

/// Reports a collapse once, after it has lasted long enough.
#[derive(Debug, Clone, Default)]
pub struct CollapseDetector {
    in_a_row: u32,
    raised: bool,
    /// Step of the first of the checks in a row that found a collapse.
    first: u64,
    /// Whether the run has been collapsed ever since the first step, where this was reported.
    since_start: bool,
}

/// Number of consecutive checks that must find a collapse.
const LOOKS: u32 = 3;
/// Fraction of the training after which that many checks suffice. DINO starts at the loss of
/// uniform guessing and then leaves it.
const GRACE: f64 = 0.02;
/// Number of steps over which a collapse must last to be reported early, for objectives with a
/// coding rate. Two checks then suffice, however long the training is, so a collapse is reported
/// within about a hundred steps.
const STEPS: u64 = 50;

impl CollapseDetector {
    /// Processes the signals of a step; returns a warning the first time that one is due.
    ///
    /// At the very first step, a warning is immediate, but only for objectives with a coding rate:
    /// a run that starts this way trains badly. It is not repeated unless the run recovers and
    /// collapses again.
    pub fn observe(&mut self, step: u64, progress: f64, signals: &Signals) -> Option<String> {
        let verdict = signals.verdict();
        if step == 0 && signals.rate_position.is_some() {
            self.since_start = verdict.is_some();
            return verdict.map(|what| format!("the run starts almost collapsed: {what}"));
        }
        self.since_start &= verdict.is_some();
        self.in_a_row = if verdict.is_some() { self.in_a_row + 1 } else { 0 };
        if self.in_a_row == 1 {
            self.first = step;
        }
        let looked = self.in_a_row >= LOOKS && progress >= GRACE;
        let lasted =
            signals.rate_position.is_some() && self.in_a_row > 1 && step >= self.first + STEPS;
        if self.raised || self.since_start || !(looked || lasted) {
            return None;
        }
        self.raised = true;
        verdict.map(|what| format!("the training has collapsed: {what}"))
    }
}

/// Returns the mean standard deviation, scaled by `sqrt(d)`, and the effective rank of the
/// directions of rows `[n, d]`. Waits for the device.
///
/// # Errors
/// Returns an error if the shape is wrong or rows are not finite.
pub fn spread(rows: &Tensor) -> Result<(f64, f64)> {
    let (n, d) = rows.size2()?;
    let rows = crate::rows::unit_rows(&rows.to_kind(Kind::Double));
    let variance = (&rows - rows.mean_dim(0, true, Kind::Double)).square();
    let std = variance.mean_dim(0, false, Kind::Double).sqrt().mean(Kind::Double);
    let std = f64::try_from(std * (d as f64).sqrt())?; // sync
    if !std.is_finite() {
        let what = "features of the teacher".to_owned();
        return Err(Error::NonFinite { term: "health", what });
    }
    let gram = if n < d { rows.matmul(&rows.tr()) } else { rows.tr().matmul(&rows) };
    let eigenvalues = gram.linalg_eigvalsh("L").clamp_min(0.0);
    Ok((std, effective_rank(&eigenvalues)?))
}

/// Returns the exponential of the entropy of eigenvalues, each taken as a fraction of their sum.
/// Waits for the device.
///
/// # Errors
/// Returns an error if a libtorch operation fails.
pub fn effective_rank(eigenvalues: &Tensor) -> Result<f64> {
    let p = eigenvalues / eigenvalues.sum(Kind::Double).clamp_min(f64::MIN_POSITIVE);
    let entropy = -p.xlogy(&p).sum(Kind::Double); // 0 log 0 = 0
    Ok(f64::try_from(entropy.exp())?)
}
