//! `I + alpha Z^T Z` of groups of rows: factor, half log-determinant, and how a failure is met.
//!
//! `G` groups, `n` rows each, `d` width, `p = min(n, d)`. Knows nothing of losses.

use tch::{Kind, Tensor};

use crate::config::RatePrecision;

/// Added to the diagonal after a failure, in units of its mean.
const JITTERS: [f64; 2] = [1e-6, 1e-4];

/// Retries that the factorisation of some groups needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateEvents {
    /// Retries with something added to the diagonal.
    pub jitter: u32,
    /// Retries in double precision.
    pub fp64: u32,
}

impl RateEvents {
    /// Whether every group was factorised at once.
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

/// Data type that a precision computes in.
pub fn kind(precision: RatePrecision) -> Kind {
    match precision {
        RatePrecision::Fp32 => Kind::Float,
        RatePrecision::Fp64 => Kind::Double,
    }
}

/// A Cholesky factorisation that may have failed.
pub struct Factor {
    /// The lower factor, `[G, p, p]`.
    pub lower: Tensor,
    /// Half the log-determinant, `[G]`.
    pub half_logdet: Tensor,
    /// Groups whose matrix was not positive definite or not finite, `[G]` bool.
    pub failed: Tensor,
}

/// `I + alpha K`, with `K` the smaller of the two Gram matrices: `Z Z^T` when `n <= d`, else
/// `Z^T Z`. Both have the same non-zero eigenvalues. `[G, n, d] -> [G, p, p]`
pub fn regularised_gram(z: &Tensor, alpha: f64) -> Tensor {
    let (n, d) = (z.size()[1], z.size()[2]);
    let z_t = z.transpose(1, 2); // [G, d, n]
    let gram = if n <= d { z.matmul(&z_t) } else { z_t.matmul(z) };
    // A product is symmetric only up to rounding.
    let symmetric = (&gram + gram.transpose(1, 2)) * (0.5 * alpha);
    symmetric + Tensor::eye(n.min(d), (z.kind(), z.device()))
}

/// Factorises all groups in one call. Reads nothing back to the host.
pub fn factorise(matrix: &Tensor) -> Factor {
    let (lower, info) = matrix.linalg_cholesky_ex(false, false);
    let diagonal = lower.diagonal(0, -2, -1); // [G, p]
    let half_logdet = diagonal.log().sum_dim_intlist([-1].as_slice(), false, matrix.kind()); // [G]
    let failed = info.not_equal(0).logical_or(&half_logdet.isfinite().logical_not());
    Factor { lower, half_logdet, failed }
}

/// `alpha (I + alpha Z Z^T)^-1 Z = alpha Z (I + alpha Z^T Z)^-1` from the factor of the smaller
/// side. `[G, p, p], [G, n, d] -> [G, n, d]`
///
/// An explicit inverse and a product beat two triangular solves here, and lose no digits: the
/// eigenvalues start at 1.
pub fn gradient(lower: &Tensor, z: &Tensor, alpha: f64) -> Tensor {
    let (n, d) = (z.size()[1], z.size()[2]);
    let inverse = lower.cholesky_inverse(false) * alpha; // [G, p, p]
    if n <= d { inverse.matmul(z) } else { z.matmul(&inverse) }
}

/// Second chances of one group, `z` being `[1, n, d]` in the precision that failed: more and more
/// jitter, then double precision. None when all failed.
pub fn retry(z: &Tensor, alpha: f64, events: &mut RateEvents) -> Option<(Tensor, Tensor)> {
    let matrix = regularised_gram(z, alpha);
    let p = matrix.size()[1];
    let mean = matrix.diagonal(0, -2, -1).mean_dim([-1].as_slice(), true, matrix.kind()); // [1, 1]
    let eye = Tensor::eye(p, (z.kind(), z.device()));
    for jitter in JITTERS {
        events.jitter += 1;
        let factor = factorise(&(&matrix + &eye * mean.unsqueeze(-1) * jitter));
        if let Some(found) = accepted(factor, z, alpha) {
            return Some(found);
        }
    }
    if z.kind() == Kind::Double {
        return None;
    }
    events.fp64 += 1;
    let z = z.to_kind(Kind::Double);
    accepted(factorise(&regularised_gram(&z, alpha)), &z, alpha)
}

/// Value `[1]` and gradient `[1, n, d]` of a factorisation that went well.
fn accepted(factor: Factor, z: &Tensor, alpha: f64) -> Option<(Tensor, Tensor)> {
    let failed = factor.failed.int64_value(&[0]) != 0; // sync, on the path of failures only
    (!failed).then(|| (factor.half_logdet, gradient(&factor.lower, z, alpha)))
}
