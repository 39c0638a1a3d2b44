//! Process-wide numerical settings: determinism, and TF32 in fp32 matrix products on GPUs.

use std::ffi::c_int;

use crate::{Error, Result, ffi};

/// The environment variable that configures cuBLAS's workspace.
const WORKSPACE: &str = "CUBLAS_WORKSPACE_CONFIG";
/// The values of [`WORKSPACE`] that make matrix products deterministic.
const REPEATABLE: [&str; 2] = [":4096:8", ":16:8"];

/// Requires operations to be bitwise deterministic, or no longer requires it. Call it before the
/// first computation on a GPU.
///
/// If `on`, libtorch uses deterministic algorithms wherever it has them, including for convolutions
/// and the backward pass of attention; an operation without one fails. cuBLAS needs
/// `CUBLAS_WORKSPACE_CONFIG` for this, which is set to `:4096:8` in this process if it is not set.
/// The kernels of [`fused`](crate::fused) add in a fixed order in any case, and so do most
/// operations on a CPU.
///
/// # Errors
/// Returns an error, and changes nothing, if `CUBLAS_WORKSPACE_CONFIG` has a value that makes
/// matrix products nondeterministic.
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

/// Returns whether [`set_deterministic`] is in effect.
pub fn is_deterministic() -> bool {
    // SAFETY: takes nothing and returns a number.
    unsafe { ffi::simdino_is_deterministic() != 0 }
}

/// Runs `f` with or without TF32 in the fp32 matrix products of CUDA devices, and then restores the
/// previous setting, even if `f` panics. The setting applies to all threads of the process. It has
/// no effect on a CPU.
///
/// With TF32, factors are rounded from 23 to 10 mantissa bits, and sums are in fp32. NVIDIA GPUs
/// since Ampere compute such products several times as fast.
///
/// # Errors
/// Returns an error, without running `f`, if libtorch rejects the setting.
pub fn with_tf32<T>(allowed: bool, f: impl FnOnce() -> T) -> Result<T> {
    let region = Region::enter(allowed)?;
    let value = f();
    drop(region);
    Ok(value)
}

/// Returns whether fp32 matrix products of CUDA devices may currently use TF32.
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
        // Restoring cannot fail if setting did not, and `drop` could not report an error.
        // SAFETY: `inside` is written before the call returns.
        let _ = unsafe { ffi::check("with_tf32", ffi::simdino_set_tf32(self.before, &mut inside)) };
    }
}
