//! Traces of the operations that libtorch runs.

use std::ffi::{CString, c_int};
use std::path::Path;
use std::ptr;

use tch::Device;

use crate::{Error, Result, ffi};

const WHAT: &str = "profile";

/// Runs `f` and writes a trace of libtorch's work during it to `path`: each operator with its time
/// and, on a GPU, each kernel and copy. The file is in the Chrome trace format, which
/// `chrome://tracing` and Perfetto can open.
///
/// Only one trace can be recorded at a time. On a GPU, `f` should wait for the device before it
/// returns: kernels that have not run yet are not in the trace.
///
/// # Errors
/// Returns an error if `device` is neither a CPU nor CUDA, the profiler does not start, `f` fails,
/// or the file cannot be written. An existing file is deleted even then.
pub fn profile<T, E: From<Error>>(
    path: &Path,
    device: Device,
    f: impl FnOnce() -> std::result::Result<T, E>,
) -> std::result::Result<T, E> {
    let file = CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| Error::Torch {
        what: WHAT,
        message: format!("{} has a NUL byte in its name", path.display()),
    })?;
    // If this call failed, a file from an earlier one would look like its result.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot replace {}: {error}", path.display());
            return Err(Error::Torch { what: WHAT, message }.into());
        }
        _ => {}
    }
    let mut recording = Recording::start(device)?;
    let value = f()?;
    recording.stop(Some(&file))?;
    if !path.exists() {
        let message = format!("cannot write {}", path.display());
        return Err(Error::Torch { what: WHAT, message }.into());
    }
    Ok(value)
}

/// A running profiler, which stops at the end of its scope.
struct Recording {
    on: bool,
}

impl Recording {
    fn start(device: Device) -> Result<Self> {
        let cuda = c_int::from(ffi::cuda_index(WHAT, device)? >= 0);
        // SAFETY: takes a number.
        unsafe { ffi::check(WHAT, ffi::simdino_profiler_start(cuda))? };
        Ok(Self { on: true })
    }

    fn stop(&mut self, path: Option<&CString>) -> Result<()> {
        self.on = false;
        let path = path.map_or(ptr::null(), |path| path.as_ptr());
        // SAFETY: null, or a terminated string that lives until the call returns.
        unsafe { ffi::check(WHAT, ffi::simdino_profiler_stop(path)) }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.on {
            // The error of `f` matters more than a failure to discard its trace.
            let _ = self.stop(None);
        }
    }
}
