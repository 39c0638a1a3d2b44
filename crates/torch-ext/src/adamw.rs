//! The fused AdamW step.

use tch::Tensor;

use crate::error::same_length;
use crate::{Result, ffi};

/// Tensors and hyperparameters of one AdamW step over a group of parameters.
///
/// # Shapes
/// `grads[i]`, `exp_avgs[i]`, and `exp_avg_sqs[i]` match `params[i]`; `steps[i]` is `[]`, float.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep<'a> {
    /// Parameters, updated in place.
    pub params: &'a [Tensor],
    /// Their gradients, only read.
    pub grads: &'a [Tensor],
    /// Running means of the gradients, updated in place.
    pub exp_avgs: &'a [Tensor],
    /// Running means of the squared gradients, updated in place.
    pub exp_avg_sqs: &'a [Tensor],
    /// Number of steps taken so far, per parameter; incremented by the call.
    pub steps: &'a [Tensor],
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean.
    pub beta1: f64,
    /// Decay of the mean square.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the square root of the mean square.
    pub eps: f64,
}

/// Performs one AdamW step, in place and outside autograd. For each parameter `p` with gradient
/// `g`:
///
/// ```text
/// t += 1
/// p *= 1 - lr * weight_decay
/// m  = beta1 * m + (1 - beta1) * g
/// v  = beta2 * v + (1 - beta2) * g * g
/// p -= lr * (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// # Errors
/// Returns an error if the lists have different lengths, or if corresponding tensors differ in
/// shape, data type, device, or (for the two means) memory layout; nothing is written then.
///
/// # Source
/// Loshchilov and Hutter, "Decoupled weight decay regularization", algorithm 2; computed by
/// libtorch's `_fused_adamw_`.
pub fn fused_adamw_(step: &AdamWStep<'_>) -> Result<()> {
    const WHAT: &str = "fused_adamw_";
    let lists = [
        ("grads", step.grads.len()),
        ("exp_avgs", step.exp_avgs.len()),
        ("exp_avg_sqs", step.exp_avg_sqs.len()),
        ("steps", step.steps.len()),
    ];
    same_length(WHAT, step.params.len(), &lists)?;
    if step.params.is_empty() {
        return Ok(());
    }
    let params = ffi::pointers(step.params);
    let grads = ffi::pointers(step.grads);
    let exp_avgs = ffi::pointers(step.exp_avgs);
    let exp_avg_sqs = ffi::pointers(step.exp_avg_sqs);
    let steps = ffi::pointers(step.steps);
    let arguments = ffi::AdamW {
        params: params.as_ptr(),
        grads: grads.as_ptr(),
        exp_avgs: exp_avgs.as_ptr(),
        exp_avg_sqs: exp_avg_sqs.as_ptr(),
        steps: steps.as_ptr(),
        len: params.len(),
        lr: step.lr,
        beta1: step.beta1,
        beta2: step.beta2,
        weight_decay: step.weight_decay,
        eps: step.eps,
    };
    // SAFETY: the five arrays outlive the call and hold `len` pointers to live tensors each.
    unsafe { ffi::check(WHAT, ffi::simdino_fused_adamw(&arguments)) }
}
