//! Autocast: matrix products and convolutions in a 16-bit type inside a region.

use std::ffi::c_int;

use tch::{Device, Kind};

use crate::{Error, Result, ffi};

// Values of `c10::ScalarType`; a negative one disables autocast.
const HALF: c_int = 5;
const BFLOAT16: c_int = 15;
const OFF: c_int = -1;

/// Runs `f` with autocast of `device` in `dtype`, or with autocast disabled (`None`), and then
/// restores the previous setting, even if `f` panics.
///
/// Autocast is a setting of the calling thread; threads that `f` starts do not inherit it. Regions
/// can be nested. Call `backward` outside. Casts of parameters are cached until the outermost
/// region ends, so do not use a parameter that requires a gradient both under `no_grad` and with
/// gradients inside one region: the cached cast has no gradient.
///
/// # Errors
/// Returns an error if `dtype` is neither half nor bfloat16, or if `device` is neither a CPU nor
/// CUDA; `f` was not run then.
pub fn autocast<T>(device: Device, dtype: Option<Kind>, f: impl FnOnce() -> T) -> Result<T> {
    let region = Region::enter(device, dtype)?;
    let value = f();
    drop(region);
    Ok(value)
}

/// Returns the data type of matrix products on `device` under this thread's innermost [`autocast`]
/// region. Returns `None` if autocast is off, and for devices other than CPU and CUDA.
pub fn autocast_kind(device: Device) -> Option<Kind> {
    const WHAT: &str = "autocast_kind";
    let cuda = c_int::from(ffi::cuda_index(WHAT, device).ok()? >= 0);
    let mut now = ffi::Autocast::default();
    // SAFETY: `now` is written before the call returns.
    unsafe { ffi::check(WHAT, ffi::simdino_autocast_state(cuda, &mut now)) }.ok()?;
    match (now.enabled, now.dtype) {
        (0, _) => None,
        (_, HALF) => Some(Kind::Half),
        (_, BFLOAT16) => Some(Kind::BFloat16),
        _ => None,
    }
}

/// An autocast region of this thread, which ends with its scope.
struct Region {
    cuda: c_int,
    before: ffi::Autocast,
}

impl Region {
    fn enter(device: Device, dtype: Option<Kind>) -> Result<Self> {
        const WHAT: &str = "autocast";
        let cuda = c_int::from(ffi::cuda_index(WHAT, device)? >= 0);
        let dtype = match dtype {
            Some(Kind::Half) => HALF,
            Some(Kind::BFloat16) => BFLOAT16,
            Some(kind) => return Err(Error::AutocastKind(kind)),
            None => OFF,
        };
        let mut before = ffi::Autocast::default();
        // SAFETY: `before` is written before the call returns.
        unsafe { ffi::check(WHAT, ffi::simdino_autocast_enter(cuda, dtype, &mut before))? };
        Ok(Self { cuda, before })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // Restoring thread-local flags to previous values cannot fail, and `drop` could not report
        // an error.
        // SAFETY: `before` is what entering this region on this thread wrote.
        let _ =
            unsafe { ffi::check("autocast", ffi::simdino_autocast_exit(self.cuda, &self.before)) };
    }
}
