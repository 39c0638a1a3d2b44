//! A weight of the similarity that keeps the coding rate on a path between floor and ceiling.
//!
//! `position = (R - floor) / (ceiling - floor)` is 0 when all features are equal and 1 when they
//! spread evenly. The path runs on a line from `position_start` to `position_end`, which it reaches
//! after the fraction `position_by` of the training, and stays there: features spread first, and
//! then agree. With `p` the path, `e = position - p` of the last step, and `r = min(m, d)` for
//! groups of `m` rows:
//!
//! ```text
//! kappa = alpha m / r                                  uniform spread has R = r/2 log(1 + kappa)
//! s     = (exp(2/r (floor + p (ceiling - floor))) - 1) / kappa      spread on the path, 0 to 1
//! log c = log(gamma r / (2 s)) + I + 6 e
//! I    <- clamp(I + 90 e * progress made by the step (at most 1/50), -3, log(s kappa / 2) + 6 p)
//! loss  = -c similarity - gamma R
//! ```
//!
//! - The first term of `log c` is the weight at which the features would stay on the path if
//!   similarity and rate acted only on their spread and the views of an image had nothing in
//!   common. Because they do have something in common, the equilibrium weight is higher; `I` learns
//!   the difference. This makes the rule independent of `gamma`, batch, groups, width, and `eps`.
//! - `I` stays 0 until the position has first reached the path. A random network starts far below
//!   it, and would otherwise drive `I` to its lower end, from which it would have to climb back
//!   before the similarity has any weight.
//! - The upper end of `I` ensures that the loss drives features away from a collapse: see
//!   docs/OBJECTIVES.md.
//! - `I` moves with the progress of the training, not with steps, so that runs on the same images
//!   in small and large batches take the same path.
//! - `c` multiplies the similarity; the rate is not divided by it instead. Both gradients shrink as
//!   features agree. Scaling them down on top of that would reduce them to a fortieth in a run of
//!   the demo, and Adam, whose second moments remember a thousand steps, would learn as if at a
//!   fortieth of the learning rate.

use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::config::SimDinoConfig;
use crate::objective::Statistics;
use crate::rate_weights::{Sizes, Weights};
use crate::{Error, Result};

/// Name of the controller in the objective's state.
pub(crate) const STATE: &str = "held";
/// Name of the measurement in the statistics of a step.
const MEASURED: &str = "held";
/// Change of `log c` per unit of position.
const PROPORTIONAL: f64 = 6.0;
/// Change of `I` per unit of position over the whole training.
const INTEGRAL: f64 = 90.0;
/// Largest progress that a step can count for. In a run of a few steps, `I` would otherwise jump
/// from one end to the other.
const LONGEST_STEP: f64 = 0.02;
/// Lower end of `I`.
const LEAST: f64 = -3.0;

/// The path at a step, and what follows from it and the sizes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// Position on the path.
    pub position: f64,
    /// First term of `log c`, `log(gamma r / (2 s))`.
    pub log_rest: f64,
    /// Upper end of `I`.
    pub most: f64,
    /// Fraction of the training that is done.
    progress: f64,
}

impl Path {
    /// Computes the path at a fraction of the training; `range` is the floor and the ceiling of
    /// the coding rate.
    pub(crate) fn at(
        config: &SimDinoConfig,
        progress: f64,
        weights: &Weights,
        sizes: Sizes,
        (floor, ceiling): (f64, f64),
    ) -> Self {
        let done = (progress / config.position_by).min(1.0);
        let position = config.position_start + done * (config.position_end - config.position_start);
        // One direction fewer remains when the mean of a group is subtracted.
        let rows = if config.center_cov { sizes.rows - 1 } else { sizes.rows };
        let directions = rows.min(sizes.width).max(1) as f64;
        let kappa = weights.alpha * sizes.rows as f64 / directions;
        // s kappa
        let spread = (2.0 / directions * (floor + position * (ceiling - floor))).exp_m1();
        Self {
            position,
            log_rest: (weights.gamma * directions * kappa / (2.0 * spread)).ln(),
            most: ((0.5 * spread).ln() + PROPORTIONAL * position).max(0.0),
            progress,
        }
    }
}

/// The controller that adapts the weight.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// `I`, `e`, the progress of the last step, and whether the path was reached (1) or not (0),
    /// in double precision on the device of the features; `None` before the first step.
    state: Option<Tensor>,
}

impl Clone for Held {
    fn clone(&self) -> Self {
        Self { state: self.state.as_ref().map(Tensor::shallow_clone) }
    }
}

impl Held {
    /// Returns the weight `c` of this step, 0-dimensional, with the type and device of `like`.
    pub(crate) fn coeff(&self, path: &Path, like: &Tensor) -> Tensor {
        match &self.state {
            None => like.detach().full_like(path.log_rest.exp()),
            Some(state) => {
                let log = state.get(0) + state.get(1) * PROPORTIONAL + path.log_rest;
                log.exp().to_kind(like.kind())
            }
        }
    }

    /// Records the position of a (micro-)batch, 0-dimensional.
    pub(crate) fn record(statistics: &mut Statistics, position: &Tensor, path: &Path) {
        let position = position.detach().to_kind(Kind::Double);
        let known = [path.position, path.most, path.progress, 1.0];
        let known = known.map(|value| position.full_like(value));
        let [aim, most, progress, one] = known;
        statistics.put(MEASURED, Tensor::stack(&[position, aim, most, progress, one], 0));
    }

    /// Updates the controller with the mean over micro-batches and processes. Does not wait for
    /// the device.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub(crate) fn update(
        &mut self,
        statistics: &Statistics,
        collective: &dyn Collective,
    ) -> Result<()> {
        let Some(sums) = statistics.get(MEASURED) else { return Ok(()) };
        let mut sums = sums.copy();
        collective.all_reduce_sum(&mut sums)?;
        let mean = &sums / sums.get(4);
        let (most, progress) = (mean.get(2), mean.get(3));
        let error = mean.get(0) - mean.get(1);
        let above = error.ge(0.0).to_kind(Kind::Double);
        let (integral, reached) = match &self.state {
            None => (error.zeros_like(), above),
            Some(state) => {
                let reached = state.get(3).maximum(&above);
                let taken = (&progress - state.get(2)).clamp(0.0, LONGEST_STEP);
                let step = taken * &error * INTEGRAL;
                ((state.get(0) + step * &reached).clamp_min(LEAST).minimum(&most), reached)
            }
        };
        self.state = Some(Tensor::stack(&[integral, error, progress, reached], 0));
        Ok(())
    }

    /// Returns the controller's state; empty before the first step.
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        self.state.iter().map(|state| (STATE.to_owned(), state.shallow_clone())).collect()
    }

    /// Restores the result of [`Self::state`].
    ///
    /// # Errors
    /// Returns an error if it has a different shape.
    pub(crate) fn load(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        let found = tensors.iter().find(|(name, _)| name == STATE).map(|(_, state)| state);
        if let Some(got) = found.map(Tensor::size).filter(|size| *size != [4]) {
            let what = "the state of simdino.coeff_rule: held";
            return Err(Error::Shape { what, expected: "[4]".into(), got });
        }
        self.state = found.map(|state| state.to_kind(Kind::Double));
        Ok(())
    }
}
