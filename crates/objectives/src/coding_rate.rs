//! The coding rate `R(Z) = 1/2 logdet(I + alpha Z^T Z)` and its gradient.
//!
//! The mathematics for one group `Z` of `n` rows of width `d`, as plain loops:
//!
//! ```text
//! for i in 0..d, j in 0..d:  C[i][j] = sum over rows k of Z[k][i] * Z[k][j]
//! M = I + alpha * C
//! L = cholesky(M)                          M = L L^T, L lower triangular
//! R = sum over i of log L[i][i]            = 1/2 logdet M
//! dR/dZ = alpha * Z * M^-1
//! ```
//!
//! When `n < d` the `n x n` matrix `I + alpha Z Z^T` takes the place of `M`: it has the same
//! determinant, and `dR/dZ = alpha (I + alpha Z Z^T)^-1 Z`. The gradient is in closed form because
//! autograd through a Cholesky factorisation costs several times as much.
//!
//! # Source
//! SimDINO, equation of `R_eps` and Theorem 3.1 (scale of its gradient), where
//! `alpha = d / (n eps^2)`; reference code `MCRLoss` in simdino/main_dino.py of
//! RobinWu218/SimDINO@8149fc4.
//!
//! # Deviations
//! The reference computes the Gram matrix in half precision, always of width `d`, and does not
//! look whether the factorisation failed. Here it is in single or double precision with autocast
//! off, on the smaller side, and a failure is retried, counted, and in the end an error.

use tch::{Kind, Tensor};

use crate::cholesky;
pub use crate::cholesky::RateEvents;
use crate::config::RatePrecision;
use crate::{Error, Result};

/// Coding rate of each group and its gradient, both detached.
#[derive(Debug)]
pub struct CodingRate {
    /// `1/2 logdet(I + alpha Z^T Z)` of each group, in the precision asked for.
    pub value: Tensor,
    /// Derivative of each group's value by its features, shaped and typed like them.
    pub gradient: Tensor,
    /// Retries that were needed.
    pub events: RateEvents,
}

/// Value and gradient of `1/2 logdet(I + alpha Z^T Z)`, in one batched call for all groups.
///
/// Takes no part in autograd. To train with it, add
/// `((Z - Z.detach()) * gradient).sum()` to the value: nothing in size, and its derivative is the
/// gradient. Waits for the device once, to read whether all went well.
///
/// # Shapes
/// - `z`: `[n, d]` or `[G, n, d]`, any floating point type
/// - value: `[G]` (`[1]` for a single group); gradient: like `z`
///
/// # Errors
/// A wrong shape; `alpha` not positive; features that are not finite; a covariance that cannot be
/// factorised even after retries.
pub fn coding_rate(z: &Tensor, alpha: f64, precision: RatePrecision) -> Result<CodingRate> {
    let z = z.detach();
    let groups = match z.dim() {
        2 => z.unsqueeze(0),
        3 => z.shallow_clone(),
        _ => return Err(wrong_shape(&z)),
    };
    let checked = rate_of_groups(&groups, alpha, precision, &[])?;
    if let Some(fault) = checked.faults.first() {
        let what = format!("features of group {}", fault.group());
        return Err(fault.error("coding rate", what));
    }
    let CodingRate { value, gradient, events } = checked.rate;
    Ok(CodingRate { value, gradient: gradient.reshape_as(&z), events })
}

/// Smallest weighted coding rate of `n` unit rows, reached when all are equal:
/// `gamma/2 log(1 + alpha n)`.
pub fn floor(gamma: f64, alpha: f64, n: usize) -> f64 {
    0.5 * gamma * (alpha * n as f64).ln_1p()
}

/// Largest weighted coding rate of `n` unit rows of width `d`, reached when they spread evenly
/// over `r = min(n, d)` directions: `gamma/2 r log(1 + alpha n / r)`.
///
/// Rows of norm `c` have the ceiling of `alpha c^2`; means of student and teacher are shorter
/// than 1, `c^2 = (1 + cos) / 2`.
pub fn ceiling(gamma: f64, alpha: f64, n: usize, d: usize) -> f64 {
    let r = n.min(d) as f64;
    if r == 0.0 { 0.0 } else { 0.5 * gamma * r * (alpha * n as f64 / r).ln_1p() }
}

/// Largest Frobenius norm of the gradient: `sqrt(min(n, d) alpha) / 2`, reached when all singular
/// values of `Z` are `1 / sqrt(alpha)` (Theorem 3.1).
pub fn gradient_bound(alpha: f64, n: usize, d: usize) -> f64 {
    0.5 * (n.min(d) as f64 * alpha).sqrt()
}

/// What is wrong with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its features hold NaN or infinity.
    NonFinite(usize),
    /// No attempt to factorise its matrix succeeded.
    NotPositiveDefinite(usize),
    /// A tensor that was to be looked at along the way is not finite; its index.
    Other(usize),
}

impl Fault {
    /// The group, or the index of the other tensor.
    pub(crate) fn group(self) -> usize {
        let (Self::NonFinite(index) | Self::NotPositiveDefinite(index) | Self::Other(index)) = self;
        index
    }

    /// The fault in words.
    pub(crate) fn error(self, term: &'static str, what: String) -> Error {
        match self {
            Self::NotPositiveDefinite(_) => Error::NotPositiveDefinite { term, what },
            _ => Error::NonFinite { term, what },
        }
    }
}

/// Rates, and what must be reported instead of them.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Meaningful when there are no faults.
    pub(crate) rate: CodingRate,
    /// Groups and other tensors that are not as they should be.
    pub(crate) faults: Vec<Fault>,
}

/// [`coding_rate`] of `[G, n, d]`, which also looks, in the same one read from the device, whether
/// the `others` are finite.
pub(crate) fn rate_of_groups(
    z: &Tensor,
    alpha: f64,
    precision: RatePrecision,
    others: &[&Tensor],
) -> Result<Checked> {
    check_arguments(z, alpha)?;
    torch_ext::autocast(z.device(), None, || {
        tch::no_grad(|| rate_in_precision(&z.detach(), alpha, precision, others))
    })?
}

fn rate_in_precision(
    z: &Tensor,
    alpha: f64,
    precision: RatePrecision,
    others: &[&Tensor],
) -> Result<Checked> {
    let work = z.to_kind(cholesky::kind(precision));
    let mut factor = cholesky::factorise(&cholesky::regularised_gram(&work, alpha));
    let flags = read_flags(&factor.failed, others)?;
    let (failed, not_finite) = flags.split_at(z.size()[0] as usize);
    let any_failed = failed.contains(&true);
    if any_failed {
        // Their factors are arbitrary; any will do until they are replaced.
        let eye = Tensor::eye(factor.lower.size()[1], (work.kind(), work.device()));
        factor.lower = eye.where_self(&factor.failed.view([-1, 1, 1]), &factor.lower);
    }
    let value = factor.half_logdet;
    let gradient = cholesky::gradient(&factor.lower, &work, alpha).to_kind(z.kind());
    let mut rate = CodingRate { value, gradient, events: RateEvents::default() };
    let mut faults = Vec::new();
    if any_failed {
        faults = recover(&mut rate, &work, alpha, failed)?;
    }
    faults.extend(raised(not_finite).map(Fault::Other));
    Ok(Checked { rate, faults })
}

/// Tries the failed groups again and puts their values and gradients in place.
fn recover(
    rate: &mut CodingRate,
    work: &Tensor,
    alpha: f64,
    failed: &[bool],
) -> Result<Vec<Fault>> {
    let finite = work.isfinite().flatten(1, 2).all_dim(1, false); // [G]
    let finite = Vec::<bool>::try_from(finite)?; // sync, on the path of failures only
    let mut faults = Vec::new();
    for group in raised(failed) {
        if !finite[group] {
            faults.push(Fault::NonFinite(group));
            continue;
        }
        let one = work.narrow(0, group as i64, 1);
        let Some((value, gradient)) = cholesky::retry(&one, alpha, &mut rate.events) else {
            faults.push(Fault::NotPositiveDefinite(group));
            continue;
        };
        rate.value.narrow(0, group as i64, 1).copy_(&value);
        rate.gradient.narrow(0, group as i64, 1).copy_(&gradient);
    }
    Ok(faults)
}

/// For each group whether its factorisation failed, which NaN and infinity among its features
/// also lead to; then for each of `others` whether it is not finite. The one read from the device.
fn read_flags(failed: &Tensor, others: &[&Tensor]) -> Result<Vec<bool>> {
    let mut flags = vec![failed.shallow_clone()];
    for other in others {
        flags.push(other.detach().isfinite().all().logical_not().reshape([1]));
    }
    Ok(Vec::<bool>::try_from(Tensor::cat(&flags, 0))?) // sync
}

/// Indices of the flags that are set.
fn raised(flags: &[bool]) -> impl Iterator<Item = usize> {
    flags.iter().enumerate().filter(|(_, flag)| **flag).map(|(index, _)| index)
}

fn check_arguments(z: &Tensor, alpha: f64) -> Result<()> {
    if z.dim() != 3 || z.numel() == 0 {
        return Err(wrong_shape(z));
    }
    if !matches!(z.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
        return Err(Error::Kind { what: "features", got: z.kind() });
    }
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(Error::Number { what: "alpha", expected: "greater than 0", got: alpha });
    }
    Ok(())
}

fn wrong_shape(z: &Tensor) -> Error {
    let expected = "[n, d] or [G, n, d], none of them 0".to_owned();
    Error::Shape { what: "features", expected, got: z.size() }
}
