//! `I + alpha Z^T Z` for groups of rows: the factorization, half the log-determinant, and the
//! handling of failures.
//!
//! `G` groups, `n` rows each, `d` width, `p` the side of the matrix that is factorized: `min(n,
//! d)`, or `d` if a group spans processes. This module knows nothing about losses.

use tch::{Device, Kind, Tensor};
use torch_ext::Collective;

use crate::Result;
use crate::config::RatePrecision;

/// Matrices with sides up to this are factorized in double precision, whatever precision the
/// products use: it takes no longer, and near a collapse, where the identity is added to far
/// larger numbers, the value keeps digits that single precision loses.
const SMALL: i64 = 128;
/// Values added to the diagonal after a failure, in units of its mean.
const JITTERS: [f64; 2] = [1e-6, 1e-4];

/// Number of retries that the factorization of some groups needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateEvents {
    /// Retries with jitter on the diagonal.
    pub jitter: u32,
    /// Retries in double precision.
    pub fp64: u32,
}

impl RateEvents {
    /// Returns whether every group was factorized at the first attempt.
    pub fn is_clean(self) -> bool {
        self == Self::default()
    }
}

impl std::ops::AddAssign for RateEvents {
    fn add_assign(&mut self, other: Self) {
        self.jitter += other.jitter;
        self.fp64 += other.fp64;
    }
}

/// Returns the data type for a precision.
pub(crate) fn kind(precision: RatePrecision) -> Kind {
    match precision {
        RatePrecision::Fp32 => Kind::Float,
        RatePrecision::Fp64 => Kind::Double,
    }
}

/// Which of the two Gram matrices is `K` in `I + alpha K`. Both have the same non-zero
/// eigenvalues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GramSide {
    /// `Z Z^T`, of side `n`.
    Samples,
    /// `Z^T Z`, of side `d`.
    Features,
}

impl GramSide {
    /// Returns the smaller side, for which both the products and the factorization cost less.
    pub(crate) fn cheaper(z: &Tensor) -> Self {
        if z.size()[1] <= z.size()[2] { Self::Samples } else { Self::Features }
    }
}

/// A Cholesky factorization that may have failed.
pub(crate) struct Factor {
    /// The lower factor, `[G, p, p]`, in the precision of the computation.
    pub lower: Tensor,
    /// Half the log-determinant, `[G]`.
    pub half_logdet: Tensor,
    /// Groups whose matrix was not positive definite or not finite, `[G]` bool.
    pub failed: Tensor,
}

/// Computes `I + alpha K`, `[G, n, d] -> [G, p, p]`. Only the lower triangle is valid, because
/// factorizations read nothing else.
///
/// On the CPU, it is computed in panels of columns from the diagonal down, which saves up to half
/// of the product.
pub(crate) fn regularized_gram(z: &Tensor, side: GramSide, alpha: f64) -> Tensor {
    let rows = match side {
        GramSide::Samples => z.shallow_clone(),
        GramSide::Features => z.transpose(1, 2),
    }; // [G, p, .]
    let (groups, p) = (rows.size()[0], rows.size()[1]);
    let panel = if z.device() == Device::Cpu { SMALL } else { p };
    let gram = Tensor::zeros([groups, p, p], (z.kind(), z.device()));
    for first in (0..p).step_by(panel as usize) {
        let (height, width) = (p - first, panel.min(p - first));
        let columns = rows.narrow(1, first, width).transpose(1, 2); // [G, ., width]
        let mut part = gram.narrow(1, first, height).narrow(2, first, width);
        let _ = part.baddbmm_(&rows.narrow(1, first, height), &columns);
    }
    regularized(gram, alpha)
}

/// Computes [`regularized_gram`] on the feature side for the rows of all processes together.
pub(crate) fn regularized_gram_across(
    z: &Tensor,
    alpha: f64,
    collective: &dyn Collective,
) -> Result<Tensor> {
    let mut gram = z.transpose(1, 2).bmm(z);
    collective.all_reduce_sum(&mut gram)?;
    Ok(regularized(gram, alpha))
}

/// Replaces `K` by `I + alpha K` in place.
fn regularized(mut gram: Tensor, alpha: f64) -> Tensor {
    let _ = gram.g_mul_scalar_(alpha);
    let _ = gram.diagonal(0, -2, -1).g_add_scalar_(1.0);
    gram
}

/// Factorizes all groups in one call, without a copy to the host.
pub(crate) fn factorize(matrix: &Tensor) -> Factor {
    let kind = if matrix.size()[1] <= SMALL { Kind::Double } else { matrix.kind() };
    let (lower, info) = matrix.to_kind(kind).linalg_cholesky_ex(false, false);
    let diagonal = lower.diagonal(0, -2, -1); // [G, p]
    let half_logdet = diagonal.log().sum_dim_intlist([-1].as_slice(), false, kind); // [G]
    let failed = info.not_equal(0).logical_or(&half_logdet.isfinite().logical_not());
    Factor { lower, half_logdet: half_logdet.to_kind(matrix.kind()), failed }
}

/// Computes `alpha (I + alpha Z Z^T)^-1 Z = alpha Z (I + alpha Z^T Z)^-1` from the factor of either
/// side. `[G, p, p], [G, n, d] -> [G, n, d]`
///
/// An explicit inverse and a product are faster than two triangular solves here and lose no
/// digits, because the eigenvalues start at 1.
pub(crate) fn gradient(lower: &Tensor, z: &Tensor, side: GramSide, alpha: f64) -> Tensor {
    let inverse = inverse(lower).to_kind(z.kind()) * alpha; // [G, p, p]
    match side {
        GramSide::Samples => inverse.bmm(z),
        GramSide::Features => z.bmm(&inverse),
    }
}

/// Computes `(L L^T)^-1` as the product of `L^-T` and `L^-1`, `[G, p, p]`.
///
/// libtorch's `cholesky_inverse` waits for the device: on CUDA, it goes through MAGMA, which
/// allocates its own memory, and elsewhere it checks for success.
fn inverse(lower: &Tensor) -> Tensor {
    let eye = Tensor::eye(lower.size()[1], (lower.kind(), lower.device()));
    let inverse = lower.linalg_solve_triangular(&eye.expand_as(lower), false, true, false);
    inverse.transpose(1, 2).bmm(&inverse)
}

/// Retries the matrix `[1, p, p]` of one group with increasing jitter, and then with the matrix
/// from `double`, unless the first one was already in double precision. Returns `None` if all
/// attempts failed.
pub(crate) fn retry(
    matrix: &Tensor,
    double: impl FnOnce() -> Tensor,
    events: &mut RateEvents,
) -> Option<Factor> {
    let p = matrix.size()[1];
    let mean = matrix.diagonal(0, -2, -1).mean_dim([-1].as_slice(), true, matrix.kind()); // [1, 1]
    let eye = Tensor::eye(p, (matrix.kind(), matrix.device()));
    for jitter in JITTERS {
        events.jitter += 1;
        let factor = factorize(&(matrix + &eye * mean.unsqueeze(-1) * jitter));
        if succeeded(&factor) {
            return Some(factor);
        }
    }
    if matrix.kind() == Kind::Double {
        return None;
    }
    events.fp64 += 1;
    let factor = factorize(&double());
    succeeded(&factor).then_some(factor)
}

/// Returns whether the single group was factorized.
fn succeeded(factor: &Factor) -> bool {
    factor.failed.int64_value(&[0]) == 0 // sync, on the path of failures only
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_is_that_of_libtorch() {
        for (kind, tolerance) in [(Kind::Double, 1e-13), (Kind::Float, 2e-5)] {
            for (groups, side) in [(1, 1), (2, 7), (3, 130)] {
                let z = Tensor::randn([groups, side, 2 * side], (kind, Device::Cpu));
                let matrix = regularized_gram(&z, GramSide::Samples, 3.0);
                let (lower, _) = matrix.linalg_cholesky_ex(false, false);
                let expected = lower.cholesky_inverse(false);
                let error = (inverse(&lower) - &expected).abs().max() / expected.abs().max();
                let error = error.double_value(&[]);
                assert!(error < tolerance, "{kind:?} {groups} {side}: {error:e}");
            }
        }
    }
}
