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
//! If `n < d`, the `n x n` matrix `I + alpha Z Z^T` replaces `M`: it has the same determinant, and
//! `dR/dZ = alpha (I + alpha Z Z^T)^-1 Z`. The gradient is in closed form because autograd through
//! a Cholesky factorization costs several times as much.
//!
//! Centered rows `Z - mean` use the same formulas and need no backward pass through the mean,
//! because the rows of `alpha (Z - mean) M^-1` already sum to zero.
//!
//! # Source
//! SimDINO, equation of `R_eps` and Theorem 3.1 (scale of its gradient), where
//! `alpha = d / (n eps^2)`; reference code `MCRLoss` in simdino/main_dino.py of
//! RobinWu218/SimDINO@8149fc4.
//!
//! # Deviations
//! The reference computes the Gram matrix in half precision, always on the feature side, and does
//! not check whether the factorization failed. Here, it is computed in single or double precision
//! with autocast off, on the smaller side (and factorized in double precision if that is small,
//! which costs nothing). A failure is retried and counted, and if all retries fail, it is an
//! error.

use tch::{Kind, Tensor};
use torch_ext::Collective;

pub use crate::cholesky::RateEvents;
use crate::cholesky::{self, GramSide};
use crate::config::RatePrecision;
use crate::deferred::Deferred;
use crate::{Error, Result};

/// Options of [`coding_rate`].
#[derive(Clone, Copy)]
pub struct RateOptions<'a> {
    /// Factor of the covariance, `d / (n eps^2)`.
    pub alpha: f64,
    /// Precision of the Gram matrix, the factorization, and the logarithms; features in double
    /// precision stay in it.
    pub precision: RatePrecision,
    /// Whether to subtract the mean of each group first.
    pub center: bool,
    /// The processes whose rows together form each group; `None` if this process has every group
    /// completely.
    pub across: Option<&'a dyn Collective>,
}

impl RateOptions<'_> {
    /// Creates options without centering, in single precision, with every group completely in this
    /// process.
    pub fn new(alpha: f64) -> Self {
        Self { alpha, precision: RatePrecision::Fp32, center: false, across: None }
    }
}

/// The coding rate of each group and its gradient, both detached.
#[derive(Debug)]
pub struct CodingRate {
    /// `1/2 logdet(I + alpha Z^T Z)` for each group, in the precision of [`RateOptions`].
    pub value: Tensor,
    /// The derivative of each group's value with respect to its features, with the same shape and
    /// type.
    ///
    /// If groups span `W` processes, it is multiplied by `W`: data-parallel training averages the
    /// gradients of processes that all have the same value, and the mean must be the derivative of
    /// that value. This equals the backward pass of a summing all-reduce, without a second
    /// exchange.
    pub gradient: Tensor,
    /// Retries that the factorization needed.
    pub events: RateEvents,
}

impl CodingRate {
    /// Returns the values `[G]` attached to autograd: `z` must be the tensor that was measured, and
    /// its derivative will be [`Self::gradient`].
    pub fn attached_to(&self, z: &Tensor) -> Tensor {
        // The value of this term is zero, and its derivative is the closed form.
        let nothing = (z - z.detach()) * &self.gradient;
        let groups = self.value.size()[0];
        let nothing = nothing.reshape([groups, -1]).sum_dim_intlist(1, false, z.kind());
        &self.value + nothing.to_kind(self.value.kind())
    }
}

/// Computes the value and the gradient of `1/2 logdet(I + alpha Z^T Z)` in one batched call for
/// all groups.
///
/// The computation is not recorded by autograd; [`CodingRate::attached_to`] attaches the result.
/// Waits for the device once, to check for failures.
///
/// # Shapes
/// - `z`: `[n, d]` or `[G, n, d]`, any floating point type
/// - value: `[G]` (`[1]` for a single group); gradient: like `z`
///
/// # Errors
/// Returns an error if a shape is wrong, `alpha` is not positive, features are not finite, a
/// covariance cannot be factorized even after retries, or a process does not respond.
pub fn coding_rate(z: &Tensor, options: &RateOptions) -> Result<CodingRate> {
    let z = z.detach();
    let groups = match z.dim() {
        2 => z.unsqueeze(0),
        3 => z.shallow_clone(),
        _ => return Err(wrong_shape(&z)),
    };
    let checked = rate_of_groups(&groups, options, &[], None)?;
    if let Some(fault) = checked.faults.first() {
        let what = format!("features of group {}", fault.index());
        return Err(fault.error("coding rate", what));
    }
    let CodingRate { value, gradient, events } = checked.rate;
    Ok(CodingRate { value, gradient: gradient.reshape_as(&z), events })
}

/// What is wrong with a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its features contain NaN or infinity.
    NonFinite(usize),
    /// No attempt to factorize its matrix succeeded.
    NotPositiveDefinite(usize),
    /// Another tensor that was checked at the same time is not finite; this is its index.
    Other(usize),
}

impl Fault {
    /// Returns the index of the group or of the other tensor.
    pub(crate) fn index(self) -> usize {
        let (Self::NonFinite(index) | Self::NotPositiveDefinite(index) | Self::Other(index)) = self;
        index
    }

    /// Converts the fault to an error.
    pub(crate) fn error(self, term: &'static str, what: String) -> Error {
        match self {
            Self::NotPositiveDefinite(_) => Error::NotPositiveDefinite { term, what },
            _ => Error::NonFinite { term, what },
        }
    }
}

/// Coding rates, and the faults to report instead of them.
#[derive(Debug)]
pub(crate) struct Checked {
    /// Valid only if there are no faults.
    pub(crate) rate: CodingRate,
    /// Groups and other tensors with a fault.
    pub(crate) faults: Vec<Fault>,
}

/// Computes [`coding_rate`] for `[G, n, d]`, and also checks, in the same read from the device,
/// whether the `others` are finite. If `deferred` is given, all checks are left to it, and the
/// rate of a group that could not be factorized is meaningless.
pub(crate) fn rate_of_groups(
    z: &Tensor,
    options: &RateOptions,
    others: &[&Tensor],
    deferred: Option<&Deferred>,
) -> Result<Checked> {
    check_arguments(z, options.alpha)?;
    torch_ext::autocast(z.device(), None, || {
        tch::no_grad(|| rate_in_precision(&z.detach(), options, others, deferred))
    })?
}

/// The matrices of all groups, and their inputs.
struct Groups {
    /// Features in working precision, centered if requested. `[G, n, d]`
    z: Tensor,
    side: GramSide,
    /// `I + alpha K`, `[G, p, p]`.
    matrix: Tensor,
    alpha: f64,
    /// Whether the matrix includes the rows of other processes.
    spanning: bool,
}

impl Groups {
    fn new(z: &Tensor, options: &RateOptions) -> Result<Self> {
        let is_double = z.kind() == Kind::Double;
        let mut z = if is_double {
            z.shallow_clone()
        } else {
            z.to_kind(cholesky::kind(options.precision))
        };
        if options.center {
            z = centered(&z, options.across)?;
        }
        let alpha = options.alpha;
        let (side, matrix) = match options.across {
            Some(all) => (GramSide::Features, cholesky::regularized_gram_across(&z, alpha, all)?),
            None => {
                let side = GramSide::cheaper(&z);
                (side, cholesky::regularized_gram(&z, side, alpha))
            }
        };
        Ok(Self { z, side, matrix, alpha, spanning: options.across.is_some() })
    }

    /// Returns the matrix of one group in double precision. If the group spans processes, the
    /// matrix is only converted: summing it again would need all processes, but the factorization
    /// may have failed only in this one.
    fn in_double(&self, group: i64) -> Tensor {
        if self.spanning {
            return self.matrix.narrow(0, group, 1).to_kind(Kind::Double);
        }
        let z = self.z.narrow(0, group, 1).to_kind(Kind::Double);
        cholesky::regularized_gram(&z, self.side, self.alpha)
    }
}

/// Subtracts the mean of each group, `[G, n, d]`.
fn centered(z: &Tensor, across: Option<&dyn Collective>) -> Result<Tensor> {
    let mut sum = z.sum_dim_intlist(1, true, z.kind()); // [G, 1, d]
    let mut rows = Tensor::full([], z.size()[1], (Kind::Double, z.device()));
    if let Some(all) = across {
        all.all_reduce_sum(&mut sum)?;
        all.all_reduce_sum(&mut rows)?;
    }
    Ok(z - sum / rows.to_kind(z.kind()))
}

fn rate_in_precision(
    z: &Tensor,
    options: &RateOptions,
    others: &[&Tensor],
    deferred: Option<&Deferred>,
) -> Result<Checked> {
    let groups = Groups::new(z, options)?;
    let mut factor = cholesky::factorize(&groups.matrix);
    let flags = match deferred {
        None => read_flags(&factor.failed, others)?,
        Some(deferred) => {
            deferred.note(&factor.half_logdet.masked_fill(&factor.failed, f64::NAN));
            others.iter().for_each(|other| deferred.note(other));
            vec![false; z.size()[0] as usize + others.len()]
        }
    };
    let (failed, not_finite) = flags.split_at(z.size()[0] as usize);
    let any_failed = failed.contains(&true);
    if any_failed {
        // Their factors are arbitrary until they are replaced.
        let eye = Tensor::eye(factor.lower.size()[1], (factor.lower.kind(), z.device()));
        factor.lower = eye.where_self(&factor.failed.view([-1, 1, 1]), &factor.lower);
    }
    let value = factor.half_logdet;
    let mut gradient = cholesky::gradient(&factor.lower, &groups.z, groups.side, options.alpha);
    let mut faults = Vec::new();
    let mut events = RateEvents::default();
    if any_failed {
        faults = recover(&value, &gradient, &mut events, &groups, failed)?;
    }
    if let Some(all) = options.across {
        gradient *= all.size() as f64;
    }
    faults.extend(raised(not_finite).map(Fault::Other));
    let rate = CodingRate { value, gradient: gradient.to_kind(z.kind()), events };
    Ok(Checked { rate, faults })
}

/// Retries the failed groups and stores their values and gradients.
fn recover(
    value: &Tensor,
    gradient: &Tensor,
    events: &mut RateEvents,
    groups: &Groups,
    failed: &[bool],
) -> Result<Vec<Fault>> {
    let finite = groups.z.isfinite().flatten(1, 2).all_dim(1, false); // [G]
    let finite = Vec::<bool>::try_from(finite)?; // sync, on the path of failures only
    let mut faults = Vec::new();
    for group in raised(failed) {
        if !finite[group] {
            faults.push(Fault::NonFinite(group));
            continue;
        }
        let at = group as i64;
        let matrix = groups.matrix.narrow(0, at, 1);
        let Some(factor) = cholesky::retry(&matrix, || groups.in_double(at), events) else {
            faults.push(Fault::NotPositiveDefinite(group));
            continue;
        };
        let z = groups.z.narrow(0, at, 1).to_kind(Kind::Double);
        let of_group = cholesky::gradient(&factor.lower, &z, groups.side, groups.alpha);
        value.narrow(0, at, 1).copy_(&factor.half_logdet);
        gradient.narrow(0, at, 1).copy_(&of_group);
    }
    Ok(faults)
}

/// Returns, for each group, whether its factorization failed, which NaN and infinity in its
/// features also cause, and then, for each of `others`, whether it is not finite. This is the only
/// read from the device.
fn read_flags(failed: &Tensor, others: &[&Tensor]) -> Result<Vec<bool>> {
    let mut flags = vec![failed.shallow_clone()];
    for other in others {
        flags.push(other.detach().isfinite().all().logical_not().reshape([1]));
    }
    Ok(Vec::<bool>::try_from(Tensor::cat(&flags, 0))?) // sync
}

/// Returns the indices of the flags that are set.
fn raised(flags: &[bool]) -> impl Iterator<Item = usize> {
    flags.iter().enumerate().filter(|(_, flag)| **flag).map(|(index, _)| index)
}

fn check_arguments(z: &Tensor, alpha: f64) -> Result<()> {
    if z.dim() != 3 || z.numel() == 0 {
        return Err(wrong_shape(z));
    }
    crate::inputs::check_kind("features", z)?;
    if !(alpha > 0.0 && alpha.is_finite()) {
        return Err(Error::Number { what: "alpha", expected: "greater than 0", got: alpha });
    }
    Ok(())
}

fn wrong_shape(z: &Tensor) -> Error {
    let expected = "[n, d] or [G, n, d], all sizes at least 1".to_owned();
    Error::Shape { what: "features", expected, got: z.size() }
}
