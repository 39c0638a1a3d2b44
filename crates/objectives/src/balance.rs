//! A weight of the coding rate that keeps its pull and that of the similarity in proportion.
//!
//! After each step, with `R` the mean coding rate and `S` the mean similarity of the step,
//!
//! ```text
//! measured = gamma |dR/ds| / (coeff |dS/ds|)
//! log gamma <- log gamma + 0.01 * (log target - log measured)
//! ```
//!
//! where `|.|` is the norm over all the student's rows `s`, of what turns them: a pull along a row
//! is undone by its normalization.
//!
//! # What it assumes
//! - What pulls on the features pulls on the weights: the network's Jacobian is not looked at.
//! - The proportion changes slowly: about 100 steps are needed to follow it.
//! - The features are not at rest. At a minimum of the loss over the features themselves, the two
//!   pulls on the global views are equal whatever `gamma` is; then nothing is left to measure.
//!
//! A step changes `gamma` by a factor of `exp(0.05)` at most. When all features are equal nothing
//! pulls at all, and `gamma` stays; it does not see a collapse, and does not end one.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::objective::Statistics;

/// Name of the weight among the objective's state.
pub const STATE: &str = "gamma";
/// Name of the squares among the statistics of a step.
const SQUARES: &str = "gamma";
const RATE: f64 = 0.01;
/// Most that the logarithm of the weight changes in a step.
const MOST: f64 = 0.05;

/// The weight and its target.
#[derive(Debug, Clone)]
pub struct Balance {
    target: f64,
    /// None before the first step, which knows the batch and the width to start from.
    gamma: Option<f64>,
}

impl Balance {
    /// A balance that aims at `target`, the rate's pull over the similarity's.
    pub fn new(target: f64) -> Self {
        Self { target, gamma: None }
    }

    /// The weight of this step, which is `first` in the first one.
    pub fn gamma(&self, first: f64) -> f64 {
        self.gamma.unwrap_or(first)
    }

    /// Notes the squares of both pulls, each 0-dimensional, and what they are weighted with.
    pub fn record(
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

    /// Moves the weight. Waits for the device.
    ///
    /// # Errors
    /// A process does not answer.
    pub fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        let Some(squares) = statistics.get(SQUARES) else { return Ok(()) };
        let mut squares = squares.to_kind(tch::Kind::Double);
        collective.all_reduce_sum(&mut squares)?;
        let sums = Vec::<f64>::try_from(squares)?; // sync
        let &[expansion, compression, gamma, count] = sums.as_slice() else { return Ok(()) };
        let gamma = gamma / count;
        let measured = (expansion / compression).sqrt();
        let step = RATE * (self.target / measured).ln();
        // 0 / 0, where nothing pulls.
        let step = if step.is_nan() { 0.0 } else { step.clamp(-MOST, MOST) };
        self.gamma = Some(gamma * step.exp());
        Ok(())
    }

    /// The weight, if it has moved.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        self.gamma.iter().map(|&gamma| (STATE.to_owned(), Tensor::from_slice(&[gamma]))).collect()
    }

    /// Puts back what [`Self::state`] gave.
    ///
    /// # Errors
    /// A tensor that holds no number.
    pub fn load(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        let found = tensors.iter().find(|(name, _)| name == STATE);
        self.gamma = found.map(|(_, value)| f64::try_from(value.reshape([-1]))).transpose()?;
        Ok(())
    }
}
