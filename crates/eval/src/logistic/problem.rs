//! The loss of logistic regression, in coordinates in which L-BFGS needs few iterations.

use tch::{Device, Kind, Tensor};

use super::config::LogisticConfig;
use super::lbfgs::{self, Point};
use super::model::LogisticModel;
use crate::error::Result;

/// Rows of a product at once, so that memory is bounded.
const ROWS: i64 = 1 << 16;

/// Train images, centered and rotated to the principal axes of the features.
///
/// Neither changes the problem: the bias takes up the mean, and the penalty does not depend on a
/// rotation. In these coordinates the Hessian of the cross-entropy is bounded by half the
/// eigenvalues of `X^T X` (Boehning, 1992), a diagonal matrix, and dividing by the bound makes
/// directions of large and small variance alike. Only `R` axes are used, along which there is any
/// variance: at the minimum, the weight has no part in the others.
pub(super) struct Problem {
    rotated: Tensor,  // [n, R]
    labels: Tensor,   // [n]
    mean: Tensor,     // [1, D]
    axes: Tensor,     // [D, R], one per column
    energies: Tensor, // [R, 1], eigenvalues of X^T X
    classes: i64,     // K
}

/// A minimum, and the same in the coordinates of the problem for the next start.
pub(super) struct Solution {
    pub model: LogisticModel,
    /// Weight in rotated coordinates and bias, `[R + 1, K]`.
    pub point: Tensor,
}

impl Problem {
    /// # Shapes
    /// - `features`: `[n, D]`
    /// - `labels`: `[n]`, from 0 to `classes - 1`
    pub(super) fn new(
        features: &Tensor,
        labels: &Tensor,
        classes: i64,
        device: Device,
    ) -> Result<Self> {
        let features = features.f_to_device(device)?.f_to_kind(Kind::Double)?;
        let mean = features.mean_dim([0].as_slice(), true, Kind::Double); // [n, D] -> [1, D]
        let centered = features - &mean;
        let (axes, energies) = principal_axes(&centered)?;
        Ok(Self {
            rotated: centered.matmul(&axes),
            labels: labels.to_device(device),
            mean,
            axes,
            energies: energies.unsqueeze(1),
            classes,
        })
    }

    /// Minimizes the loss for one `C`, from `start` if there is one, or from zero.
    pub(super) fn solve(
        &self,
        c: f64,
        start: Option<&Tensor>,
        config: &LogisticConfig,
    ) -> Result<Solution> {
        let options = (Kind::Double, self.rotated.device());
        let rank = self.rotated.size()[1];
        // The bound of the Hessian: of the weight with the penalty, and of the bias.
        let count = self.rotated.size()[0] as f64;
        let of_bias = Tensor::full([1, 1], 0.5 * c * count, options);
        let bound = Tensor::cat(&[&self.energies * (0.5 * c) + 1.0, of_bias], 0); // [R + 1, 1]
        let scale = bound.rsqrt();
        let start = match start {
            Some(start) => start.shallow_clone(),
            None => Tensor::zeros([rank + 1, self.classes], options),
        };
        let objective = |scaled: &Tensor| {
            let (loss, gradient) = self.loss(&(scaled * &scale), c);
            Point { loss, gradient: gradient * &scale }
        };
        let limits =
            lbfgs::Limits { iterations: config.max_iterations, tolerance: config.tolerance };
        let found = lbfgs::minimize(&(start / &scale), objective, limits);
        let point = found.at * &scale; // [R + 1, K]
        let weight = self.axes.matmul(&point.narrow(0, 0, rank)); // [D, R] x [R, K] -> [D, K]
        let bias = point.get(rank) - self.mean.matmul(&weight).squeeze_dim(0);
        let model = LogisticModel {
            weight,
            bias,
            loss: found.loss,
            iterations: found.iterations,
            converged: found.converged,
        };
        Ok(Solution { model, point })
    }

    /// Loss and gradient at `[R + 1, K]`.
    fn loss(&self, point: &Tensor, c: f64) -> (f64, Tensor) {
        let (count, rank) = (self.rotated.size()[0], self.rotated.size()[1]);
        let (weight, bias) = (point.narrow(0, 0, rank), point.narrow(0, rank, 1));
        let mut loss = weight.square().sum(None) * 0.5;
        let mut of_weight = weight.copy();
        let mut of_bias = bias.zeros_like();
        let mut first = 0;
        while first < count {
            let rows = ROWS.min(count - first);
            let x = self.rotated.narrow(0, first, rows); // [b, R]
            let labels = self.labels.narrow(0, first, rows).unsqueeze(1); // [b, 1]
            let scores = x.matmul(&weight) + &bias; // [b, K]
            let log_sums = scores.logsumexp([1].as_slice(), true); // [b, 1]
            loss += (&log_sums - scores.gather(1, &labels, false)).sum(None) * c;
            let ones = Tensor::ones([rows, 1], (Kind::Double, x.device()));
            let errors = (scores - log_sums).exp().scatter_add(1, &labels, &-ones); // [b, K]
            of_weight += x.tr().matmul(&errors) * c;
            of_bias += errors.sum_dim_intlist([0].as_slice(), true, Kind::Double) * c;
            first += rows;
        }
        (loss.double_value(&[]), Tensor::cat(&[of_weight, of_bias], 0))
    }
}

/// Orthonormal axes along which rows `[n, D]` vary, `[D, R]`, and the eigenvalues of `X^T X` of
/// these axes, `[R]`: from the smaller of the two Gram matrices.
fn principal_axes(centered: &Tensor) -> Result<(Tensor, Tensor)> {
    let (count, dim) = centered.size2()?;
    let gram =
        if count < dim { centered.matmul(&centered.tr()) } else { centered.tr().matmul(centered) };
    let (energies, vectors) = gram.f_linalg_eigh("L")?; // ascending
    let least = energies.max() * f64::EPSILON * (count.max(dim) as f64);
    let varied = energies.gt_tensor(&least);
    let rank = varied.sum(Kind::Int64).int64_value(&[]);
    let first = count.min(dim) - rank;
    let (energies, vectors) = (energies.narrow(0, first, rank), vectors.narrow(1, first, rank));
    let axes = match count < dim {
        true => centered.tr().matmul(&vectors) * energies.rsqrt(), // [D, n] x [n, R] -> [D, R]
        false => vectors,
    };
    Ok((axes, energies))
}
