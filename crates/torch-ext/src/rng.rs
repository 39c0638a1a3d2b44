//! libtorch's default random number generators.

use tch::{Device, Tensor};

use crate::{Result, ffi};

/// Seeds the generators of the CPU and of every CUDA device.
///
/// A device whose generator cannot be accessed is skipped; its first use will report the reason.
pub fn manual_seed(seed: u64) {
    // SAFETY: takes a number, and touches generators only under their own locks or, for
    // accelerators, through libtorch's own initialization.
    let _ = unsafe { ffi::check("manual_seed", ffi::simdino_manual_seed(seed)) };
}

/// Returns the state of a device's default generator as a byte tensor on the CPU, for use with
/// [`set_rng_state`].
///
/// # Errors
/// Returns an error if the device does not exist.
pub fn rng_state(device: Device) -> Result<Tensor> {
    const WHAT: &str = "rng_state";
    let index = ffi::cuda_index(WHAT, device)?;
    let mut state = std::ptr::null_mut();
    // SAFETY: `state` has room for the one pointer written.
    unsafe { ffi::check(WHAT, ffi::simdino_rng_state(index, &mut state))? };
    // SAFETY: without an error it is a new tensor of which we become the only owner.
    Ok(unsafe { Tensor::from_ptr(state) })
}

/// Restores a state of a device's default generator that [`rng_state`] returned.
///
/// # Errors
/// Returns an error if the device does not exist, or `state` is not a state of its generator.
pub fn set_rng_state(device: Device, state: &Tensor) -> Result<()> {
    const WHAT: &str = "set_rng_state";
    let index = ffi::cuda_index(WHAT, device)?;
    // SAFETY: the tensor is alive for the call, which only reads it.
    unsafe { ffi::check(WHAT, ffi::simdino_set_rng_state(index, state.as_ptr().cast_mut())) }
}
