//! A weight of the coding rate that keeps its gradient in proportion to that of the similarity.
//!
//! After each step, with `R` the mean coding rate and `S` the mean similarity of the step,
//!
//! ```text
//! measured = gamma |dR/ds| / (coeff |dS/ds|)
//! log gamma <- log gamma + 0.01 * (log target - log measured)
//! ```
//!
//! where `|.|` is the norm over all rows `s` of the student of the part of the gradient that
//! rotates them: a gradient along a row is undone by its normalization.
//!
//! # What it assumes
//! - A gradient with respect to the features stands for one with respect to the weights: the
//!   Jacobian of the network is ignored.
//! - The proportion changes slowly: it takes about 100 steps to follow it.
//! - The features are not at rest. At a minimum of the loss over the features themselves, the two
//!   gradients on the global views are equal for any `gamma`, and there is nothing left to
//!   measure.
//!
//! A step changes `gamma` by a factor of at most `exp(0.05)`. When all features are equal, both
//! gradients vanish and `gamma` does not change; it neither detects nor ends a collapse.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::objective::Statistics;

/// Name of the weight in the objective's state.
pub(crate) const STATE: &str = "gamma";
/// Name of the squared gradient norms in the statistics of a step.
const SQUARES: &str = "gamma";
const RATE: f64 = 0.01;
/// Largest change of the logarithm of the weight in a step.
const MOST: f64 = 0.05;

/// The weight and its target.
#[derive(Debug, Clone)]
pub(crate) struct Balance {
    target: f64,
    /// `None` before the first step, because the initial value depends on the batch size and width.
    gamma: Option<f64>,
}

impl Balance {
    /// Creates a balance with the ratio `target` of the rate's gradient to the similarity's.
    pub(crate) fn new(target: f64) -> Self {
        Self { target, gamma: None }
    }

    /// Returns the weight of this step; in the first step, it is `first`.
    pub(crate) fn gamma(&self, first: f64) -> f64 {
        self.gamma.unwrap_or(first)
    }

    /// Records the squared norms of both weighted gradients, each 0-dimensional, and `gamma`.
    pub(crate) fn record(
        statistics: &mut Statistics,
        expansion: &Tensor,
        compression: &Tensor,
        gamma: f64,
    ) {
        let gamma = expansion.full_like(gamma);
        let one = expansion.ones_like();
        let squares =
            [expansion.shallow_clone(), compression.to_kind(expansion.kind()), gamma, one];
        statistics.put(SQUARES, Tensor::stack(&squares, 0));
    }

    /// Updates the weight. Waits for the device.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub(crate) fn update(
        &mut self,
        statistics: &Statistics,
        collective: &dyn Collective,
    ) -> Result<()> {
        let Some(squares) = statistics.get(SQUARES) else { return Ok(()) };
        let mut squares = squares.to_kind(tch::Kind::Double);
        collective.all_reduce_sum(&mut squares)?;
        let sums = Vec::<f64>::try_from(squares)?; // sync
        let &[expansion, compression, gamma, count] = sums.as_slice() else { return Ok(()) };
        let gamma = gamma / count;
        let measured = (expansion / compression).sqrt();
        let step = RATE * (self.target / measured).ln();
        // 0 / 0 if both gradients vanish.
        let step = if step.is_nan() { 0.0 } else { step.clamp(-MOST, MOST) };
        self.gamma = Some(gamma * step.exp());
        Ok(())
    }

    /// Returns the weight; empty if it has not been updated yet.
    pub(crate) fn state(&self) -> Vec<(String, Tensor)> {
        self.gamma.iter().map(|&gamma| (STATE.to_owned(), Tensor::from_slice(&[gamma]))).collect()
    }

    /// Restores the result of [`Self::state`].
    ///
    /// # Errors
    /// Returns an error if a tensor does not contain a number.
    pub(crate) fn load(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        let found = tensors.iter().find(|(name, _)| name == STATE);
        self.gamma = found.map(|(_, value)| f64::try_from(value.reshape([-1]))).transpose()?;
        Ok(())
    }
}
