//! Memory of a device: its total size, and how much this process holds.

use std::fs;

use tch::Device;

use crate::{Error, Result, ffi};

const STATUS: &str = "/proc/self/status";
const MEMINFO: &str = "/proc/meminfo";

/// Memory of a device, in bytes.
///
/// On CUDA, `allocated`, `reserved`, and the peak are those of this process's caching allocator. On
/// the CPU, they come from the operating system: `allocated` and `reserved` are both the resident
/// set of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceMemory {
    /// Memory in use by tensors. While a [`CudaGraph`](crate::CudaGraph) exists, this equals
    /// `reserved_bytes`, because memory that a graph uses cannot be told apart from cached memory.
    pub allocated_bytes: u64,
    /// Memory that is in use or cached.
    pub reserved_bytes: u64,
    /// Largest `allocated_bytes` so far, or since [`reset_peak_memory`].
    pub peak_allocated_bytes: u64,
    /// Total memory.
    pub total_bytes: u64,
    /// Memory that any process can still allocate.
    pub free_bytes: u64,
}

/// Returns the current memory usage of `device`. Does not wait for the device.
///
/// # Errors
/// Returns an error if the device does not exist or, on the CPU, if the system has no /proc.
pub fn device_memory(device: Device) -> Result<DeviceMemory> {
    const WHAT: &str = "device_memory";
    let index = ffi::cuda_index(WHAT, device)?;
    if index < 0 {
        return process_memory();
    }
    let mut memory = ffi::Memory::default();
    // SAFETY: `memory` is written before the call returns.
    unsafe { ffi::check(WHAT, ffi::simdino_cuda_memory(index, &mut memory))? };
    Ok(DeviceMemory {
        allocated_bytes: memory.allocated,
        reserved_bytes: memory.reserved,
        peak_allocated_bytes: memory.peak_allocated,
        total_bytes: memory.total,
        free_bytes: memory.free,
    })
}

/// Resets the peak to the current value, or does nothing if the system does not support that.
pub fn reset_peak_memory(device: Device) {
    match ffi::cuda_index("reset_peak_memory", device) {
        Ok(index) if index >= 0 => {
            // SAFETY: takes a number, which the shim checks.
            let _ = unsafe { ffi::check("reset_peak_memory", ffi::simdino_cuda_reset_peak(index)) };
        }
        // 5 asks Linux to reset the peak resident set.
        Ok(_) => drop(fs::write("/proc/self/clear_refs", "5")),
        Err(_) => {}
    }
}

fn process_memory() -> Result<DeviceMemory> {
    let status = read(STATUS)?;
    let meminfo = read(MEMINFO)?;
    let resident = kibibytes(STATUS, &status, "VmRSS")?;
    Ok(DeviceMemory {
        allocated_bytes: resident,
        reserved_bytes: resident,
        peak_allocated_bytes: kibibytes(STATUS, &status, "VmHWM")?,
        total_bytes: kibibytes(MEMINFO, &meminfo, "MemTotal")?,
        free_bytes: kibibytes(MEMINFO, &meminfo, "MemAvailable")?,
    })
}

fn read(path: &'static str) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::System { path, source })
}

/// Parses a line such as `VmRSS:   1234 kB` and returns the number of bytes.
fn kibibytes(path: &'static str, text: &str, key: &'static str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .map(|count| count * 1024)
        .ok_or(Error::MissingLine { path, key })
}

#[cfg(test)]
mod tests {
    use super::kibibytes;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let text = "VmRSSx:\t9 kB\nVmRSS:\t    12 kB\n";
        assert_eq!(kibibytes("f", text, "VmRSS").unwrap(), 12 * 1024);
        assert!(kibibytes("f", text, "VmHWM").is_err());
    }
}
