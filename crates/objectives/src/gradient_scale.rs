//! Bounds on the coding rate and its gradient, and the resulting rules for its weight `gamma`.
//!
//! `n` rows of a group, `d` width, `alpha = d / (n eps^2)`. If `Z` has the singular values `s`,
//! its gradient has the singular values `alpha s / (1 + alpha s^2)`. Each is at most `sqrt(alpha)
//! / 2`, and at most `min(n, d)` of them are not 0. Hence
//!
//! ```text
//! |dR/dZ|_F <= sqrt(min(n, d) alpha) / 2 = 1/(2 eps) * sqrt(d min(n, d) / n)
//! ```
//!
//! with equality when every singular value is `1 / sqrt(alpha)`.
//!
//! # Source
//! SimDINO, Theorem 3.1. The constant was derived here; the published code has the same scale in a
//! comment, `sqrt(eps N m) / p`.

use tch::Tensor;

use crate::coding_rate::{RateOptions, coding_rate};
use crate::config::RatePrecision;
use crate::{Error, Result};

/// Returns the smallest coding rate of `n` unit rows, reached when all are equal:
/// `1/2 log(1 + alpha n)`.
pub fn rate_floor(alpha: f64, n: usize) -> f64 {
    0.5 * (alpha * n as f64).ln_1p()
}

/// Returns the largest coding rate of `n` unit rows of width `d`, reached when they spread evenly
/// over `r = min(n, d)` directions: `r/2 log(1 + alpha n / r)`.
///
/// For rows of norm `c`, it is the ceiling with `alpha c^2` in place of `alpha`. Means of student
/// and teacher are shorter than 1, with `c^2 = (1 + cos) / 2`.
pub fn rate_ceiling(alpha: f64, n: usize, d: usize) -> f64 {
    spread_over(n.min(d), alpha, n)
}

/// Returns the coding rate of `n` unit rows that spread evenly over `r` directions.
pub(crate) fn spread_over(r: usize, alpha: f64, n: usize) -> f64 {
    let r = r as f64;
    if r == 0.0 { 0.0 } else { 0.5 * r * (alpha * n as f64 / r).ln_1p() }
}

/// Returns the largest Frobenius norm of the gradient: `sqrt(min(n, d) alpha) / 2` (Theorem 3.1).
pub fn gradient_bound(alpha: f64, n: usize, d: usize) -> f64 {
    0.5 * (n.min(d) as f64 * alpha).sqrt()
}

/// Returns the weight of the coding rate in the published code: `1/n + 1/d`.
pub fn gamma_code(n: usize, d: usize) -> f64 {
    1.0 / n as f64 + 1.0 / d as f64
}

/// Returns the weight that makes the bound of the gradient 1/2 for all `n`, `d`, and `eps`:
/// `eps sqrt(n / (d min(n, d)))`, with the paper's `eps`.
pub fn gamma_theorem(eps: f64, n: usize, d: usize) -> f64 {
    eps * (n as f64 / (d * n.min(d)) as f64).sqrt()
}

/// The quantities of the theorem, measured on features.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GradientScale {
    /// Number of rows.
    pub n: usize,
    /// Width.
    pub d: usize,
    /// The paper's `eps`.
    pub eps: f64,
    /// Coding rate.
    pub rate: f64,
    /// The coding rate if all rows were equal.
    pub floor: f64,
    /// The coding rate if rows, which must have norm 1, spread evenly.
    pub ceiling: f64,
    /// Frobenius norm of the gradient.
    pub norm: f64,
    /// The upper bound of the norm.
    pub bound: f64,
}

impl GradientScale {
    /// Measures `z` in double precision.
    ///
    /// # Shapes
    /// - `z`: `[n, d]`
    ///
    /// # Errors
    /// Same as [`coding_rate`]. Also returns an error if `eps` is not positive.
    pub fn measure(z: &Tensor, eps: f64) -> Result<Self> {
        if eps.is_nan() || eps <= 0.0 {
            return Err(Error::Number { what: "eps", expected: "greater than 0", got: eps });
        }
        let (n, d) = z.size2()?;
        let alpha = d as f64 / (n as f64 * eps * eps);
        let options = RateOptions { precision: RatePrecision::Fp64, ..RateOptions::new(alpha) };
        let z = z.to_kind(tch::Kind::Double);
        let rate = coding_rate(&z, &options)?;
        let (n, d) = (n as usize, d as usize);
        Ok(Self {
            n,
            d,
            eps,
            rate: f64::try_from(rate.value.get(0))?,
            floor: rate_floor(alpha, n),
            ceiling: rate_ceiling(alpha, n, d),
            norm: f64::try_from(rate.gradient.norm())?,
            bound: gradient_bound(alpha, n, d),
        })
    }
}
