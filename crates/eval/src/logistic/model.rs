//! A classifier with one score per class, linear in the features.

use tch::{Kind, Tensor};

/// A fitted classifier.
#[derive(Debug)]
pub struct LogisticModel {
    /// `[D, K]` in fp64.
    pub weight: Tensor,
    /// `[K]` in fp64.
    pub bias: Tensor,
    /// The minimum: `C` times the summed cross-entropy plus half the squared norm of the weight.
    pub loss: f64,
    /// Number of iterations.
    pub iterations: usize,
    /// Whether the last iteration was within the tolerance.
    pub converged: bool,
}

impl LogisticModel {
    /// Returns the scores of features `[n, D]`: `[n, K]` in fp64.
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.to_kind(Kind::Double).matmul(&self.weight) + &self.bias
    }
}
