//! The fitted classifier.

use tch::{Kind, Tensor};

/// A fitted linear classifier, with one score per class.
#[derive(Debug)]
pub struct LogisticModel {
    /// Weights, `[D, K]` in fp64.
    pub weight: Tensor,
    /// Biases, `[K]` in fp64.
    pub bias: Tensor,
    /// The minimized loss: `C` times the summed cross-entropy plus half the squared norm of the
    /// weight.
    pub loss: f64,
    /// Number of iterations.
    pub iterations: usize,
    /// Whether the fit converged to within the tolerance.
    pub converged: bool,
}

impl LogisticModel {
    /// Returns the scores of features `[n, D]`: `[n, K]` in fp64.
    pub fn scores(&self, features: &Tensor) -> Tensor {
        features.to_kind(Kind::Double).matmul(&self.weight) + &self.bias
    }
}
