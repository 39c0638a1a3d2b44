//! Operations on many tensors at once: on a GPU, a few kernels instead of one per tensor.

use tch::Tensor;

use crate::error::same_length;
use crate::{Result, ffi};

/// Moves each target toward its source, in place and outside autograd:
/// `targets[i] += weight * (sources[i] - targets[i])`.
///
/// With `weight = 1 - momentum` this is the update of an exponential moving average.
///
/// # Errors
/// Returns an error if the lists differ in length, or a pair differs in shape, data type, or
/// device; nothing is written then.
pub fn foreach_lerp_(targets: &[Tensor], sources: &[Tensor], weight: f64) -> Result<()> {
    const WHAT: &str = "foreach_lerp_";
    same_length(WHAT, targets.len(), &[("sources", sources.len())])?;
    if targets.is_empty() {
        return Ok(());
    }
    let (to, from) = (ffi::pointers(targets), ffi::pointers(sources));
    // SAFETY: both arrays hold `to.len()` pointers to live tensors, which the borrows keep alive.
    unsafe {
        ffi::check(WHAT, ffi::simdino_foreach_lerp(to.as_ptr(), from.as_ptr(), to.len(), weight))
    }
}

/// Returns the Euclidean norm of each tensor as a 0-dimensional tensor on the same device. Does not
/// wait for the device.
///
/// # Errors
/// Returns an error if a tensor does not have a floating-point type.
pub fn foreach_norm(tensors: &[Tensor]) -> Result<Vec<Tensor>> {
    const WHAT: &str = "foreach_norm";
    if tensors.is_empty() {
        return Ok(Vec::new());
    }
    let list = ffi::pointers(tensors);
    let mut norms = vec![std::ptr::null_mut(); list.len()];
    // SAFETY: `list` holds as many pointers to live tensors as `norms` has room for.
    unsafe {
        ffi::check(WHAT, ffi::simdino_foreach_norm(list.as_ptr(), list.len(), norms.as_mut_ptr()))?;
    }
    // SAFETY: without an error each entry is a new tensor of which we become the only owner.
    Ok(norms.into_iter().map(|norm| unsafe { Tensor::from_ptr(norm) }).collect())
}

/// Multiplies each tensor by its factor, in place and outside autograd: `tensors[i] *= factors[i]`.
///
/// The factors are numbers on the host because for tensors, libtorch launches one kernel per
/// factor.
///
/// # Errors
/// Returns an error if the lists differ in length.
pub fn foreach_mul_(tensors: &[Tensor], factors: &[f64]) -> Result<()> {
    const WHAT: &str = "foreach_mul_";
    same_length(WHAT, tensors.len(), &[("factors", factors.len())])?;
    if tensors.is_empty() {
        return Ok(());
    }
    let list = ffi::pointers(tensors);
    // SAFETY: `list` holds pointers to live tensors, and `factors` as many numbers.
    unsafe {
        ffi::check(WHAT, ffi::simdino_foreach_mul(list.as_ptr(), factors.as_ptr(), list.len()))
    }
}

/// Frees the tensors' gradients. The next backward pass allocates new ones, whereas
/// `Tensor::zero_grad` would keep their memory, filled with zeros, during the forward pass.
///
/// Do not use it for parameters of a [`Reducer`](crate::Reducer), whose gradients are views into
/// its buckets.
///
/// # Errors
/// Returns an error if a tensor is undefined.
pub fn drop_gradients(tensors: &[Tensor]) -> Result<()> {
    let list = ffi::pointers(tensors);
    // SAFETY: `list` holds that many pointers to live tensors, which the borrow keeps alive.
    unsafe { ffi::check("drop_gradients", ffi::simdino_drop_gradients(list.as_ptr(), list.len())) }
}
