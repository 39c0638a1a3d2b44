//! Sinkhorn-Knopp: teacher targets that use all prototypes equally.
//!
//! With `B` rows of scores over all processes, `K` prototypes, and `Q = exp(scores / temperature)`:
//!
//! ```text
//! 3 times:  every prototype gets the same share:  Q[:, k] /= K * sum_b Q[b, k]
//!           every row gets the same share:        Q[b, :] /= B * sum_k Q[b, k]
//! result:   B * Q, whose rows sum to 1
//! ```
//!
//! This implementation works with logarithms, `log Q = scores / temperature + f[k] + g[b]`, and
//! sums by log-sum-exp, so that scores of any size are safe; `exp` overflows at 88 in single
//! precision.
//!
//! # Source
//! DINOv2, `sinkhorn_knopp_teacher` of facebookresearch/dinov2@b8931f7.
//!
//! # Deviations
//! If no process has any rows (no patch was masked), the result is empty, where the reference
//! divides by 0.

use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::Result;

const ITERATIONS: usize = 3;

/// Returns the targets of this process's rows, `[B_local, K] -> [B_local, K]`.
///
/// # Errors
/// Returns an error if a process does not respond.
pub fn sinkhorn_knopp(
    scores: &Tensor,
    temperature: f64,
    collective: &dyn Collective,
) -> Result<Tensor> {
    let scores = scores.detach() / temperature;
    let (rows, prototypes) = scores.size2()?;
    let mut total = Tensor::full([], rows, (Kind::Double, scores.device()));
    collective.all_reduce_sum(&mut total)?;
    // Without any rows, this is -inf, but then there is nothing that it would be added to.
    let log_rows = total.log().to_kind(scores.kind());
    let log_prototypes = (prototypes as f64).ln();
    let mut row_term = Tensor::zeros([rows, 1], (scores.kind(), scores.device())); // g
    let mut column_term = Tensor::zeros([1, prototypes], (scores.kind(), scores.device())); // f
    for _ in 0..ITERATIONS {
        let of_columns = log_sum_rows(&(&scores + &row_term), collective)?; // [1, K]
        column_term = -of_columns - log_prototypes;
        let of_rows = (&scores + &column_term).logsumexp(1, true); // [B, 1]
        row_term = -of_rows - &log_rows;
    }
    Ok((scores + column_term + row_term + log_rows).exp())
}

/// Computes log-sum-exp over the rows of all processes, `[B_local, K] -> [1, K]`.
fn log_sum_rows(x: &Tensor, collective: &dyn Collective) -> Result<Tensor> {
    let (rows, width) = x.size2()?;
    let mut top = if rows == 0 {
        Tensor::full([1, width], f64::NEG_INFINITY, (x.kind(), x.device()))
    } else {
        x.amax([0].as_slice(), true)
    };
    collective.all_reduce_max(&mut top)?;
    let mut sum = (x - &top).exp().sum_dim_intlist(0, true, x.kind());
    collective.all_reduce_sum(&mut sum)?;
    Ok(sum.log() + top)
}
