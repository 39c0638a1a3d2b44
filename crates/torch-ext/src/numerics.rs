//! Settings of the whole process: whether results repeat, and how GPUs multiply single precision.

use std::ffi::c_int;

use crate::{Error, Result, ffi};

/// The variable by which cuBLAS learns which memory its products may use.
const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
/// Its values with which a product always adds in the same order.
const REPEATABLE: [&str; 2] = [":4096:8", ":16:8"];

/// Makes operations repeat bit for bit, or stops requiring it. Call it before the first computation
/// on a GPU.
///
/// If `on`, libtorch chooses deterministic algorithms wherever it has them, for convolutions and the
/// backward pass of attention, too, and an operation that has none is an error. cuBLAS needs
/// `CUBLAS_WORKSPACE_CONFIG` for this, which is set to `:4096:8` in this process if it is not set.
/// The kernels of [`fused`](crate::fused) add in a fixed order in any case, and so do most operations
/// on a CPU.
///
/// # Errors
/// Returns an error if `CUBLAS_WORKSPACE_CONFIG` has a value with which products do not repeat;
/// nothing has changed then.
pub fn set_deterministic(on: bool) -> Result<()> {
    if let Some(got) = std::env::var_os(WORKSPACE).filter(|_| on) {
        let got = got.to_string_lossy().into_owned();
        if !REPEATABLE.contains(&got.as_str()) {
            return Err(Error::Workspace { got });
        }
    }
    // SAFETY: takes a number.
    unsafe { ffi::check("set_deterministic", ffi::simdino_set_deterministic(c_int::from(on))) }
}

/// Whether [`set_deterministic`] is in effect.
pub fn is_deterministic() -> bool {
    // SAFETY: takes nothing and returns a number.
    unsafe { ffi::simdino_is_deterministic() != 0 }
}

/// Runs `f` with or without TF32 in the fp32 matrix products of CUDA devices, in all threads, and then
/// restores the previous setting, even if `f` panics. It has no effect on a CPU.
///
/// TF32 is single precision with factors rounded to 10 bits behind the point instead of 23, and sums in
/// full; GPUs from NVIDIA's Ampere on multiply it several times as fast.
///
/// # Errors
/// Returns an error if libtorch refuses; `f` was not run then.
pub fn with_tf32<T>(allowed: bool, f: impl FnOnce() -> T) -> Result<T> {
    let region = Region::enter(allowed)?;
    let value = f();
    drop(region);
    Ok(value)
}

/// Whether the fp32 matrix products of CUDA devices may use TF32 now.
///
/// # Errors
/// No errors are known.
pub fn tf32_allowed() -> Result<bool> {
    let mut allowed = 0;
    // SAFETY: `allowed` is written before the call returns.
    unsafe { ffi::check("tf32_allowed", ffi::simdino_tf32(&mut allowed))? };
    Ok(allowed != 0)
}

/// A region with or without TF32, which ends with its scope.
struct Region {
    before: c_int,
}

impl Region {
    fn enter(allowed: bool) -> Result<Self> {
        let mut before = 0;
        // SAFETY: `before` is written before the call returns.
        unsafe {
            ffi::check("with_tf32", ffi::simdino_set_tf32(c_int::from(allowed), &mut before))?;
        }
        Ok(Self { before })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut inside = 0;
        // Setting back cannot fail where setting did not, and `drop` could not report an error.
        // SAFETY: `inside` is written before the call returns.
        let _ = unsafe { ffi::check("with_tf32", ffi::simdino_set_tf32(self.before, &mut inside)) };
    }
}
