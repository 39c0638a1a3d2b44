//! Versions of libtorch and names of devices.

use std::ffi::{CStr, c_char};
use std::fs;

use tch::Device;

use crate::{Result, ffi};

/// Returns the version of libtorch, such as `2.11.0`.
pub fn libtorch_version() -> String {
    // SAFETY: the shim returns a string constant.
    unsafe { CStr::from_ptr(ffi::simdino_torch_version()) }.to_string_lossy().into_owned()
}

/// Returns the CUDA version that libtorch was built with, such as `13.0`, or `None` for a CPU-only
/// libtorch.
///
/// A version does not imply that this machine has a CUDA device.
pub fn cuda_version() -> Option<String> {
    let mut version = 0;
    // SAFETY: `version` is written before the call returns.
    unsafe { ffi::check("cuda_version", ffi::simdino_cuda_version(&mut version)) }.ok()?;
    (version > 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// Sets the default CUDA device of this thread; does nothing for the CPU. A process that computes
/// on a GPU other than the first must call it before anything else; otherwise, it also allocates
/// some memory on the first GPU.
///
/// # Errors
/// Returns an error if the device does not exist.
pub fn set_current_device(device: Device) -> Result<()> {
    const WHAT: &str = "set_current_device";
    match ffi::cuda_index(WHAT, device)? {
        index if index < 0 => Ok(()),
        // SAFETY: takes a number, which the shim checks.
        index => unsafe { ffi::check(WHAT, ffi::simdino_cuda_set_device(index)) },
    }
}

/// Returns the model name of the GPU or processor, or the lowercase `Debug` form of `device` if the
/// system does not report a name.
pub fn device_name(device: Device) -> String {
    let name = match device {
        Device::Cpu => cpu_name(),
        Device::Cuda(_) => cuda_name(device).ok(),
        _ => None,
    };
    name.unwrap_or_else(|| format!("{device:?}").to_lowercase())
}

fn cpu_name() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn cuda_name(device: Device) -> Result<String> {
    const WHAT: &str = "device_name";
    let index = ffi::cuda_index(WHAT, device)?;
    let mut name = [0 as c_char; 256];
    // SAFETY: the shim writes at most `name.len()` bytes, the last of them a zero.
    unsafe { ffi::check(WHAT, ffi::simdino_cuda_name(index, name.as_mut_ptr(), name.len()))? };
    // SAFETY: the array was zeroed and then written by snprintf, so it is terminated.
    Ok(unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned())
}
