//! Resolves `auto`, `cpu`, `cuda`, or `cuda:N` to a device of this machine.

use tch::{Cuda, Device};
use torch_ext::Launch;

use crate::error::{Error, Result};

/// Text for `--help` and for messages.
pub const EXPECTED: &str = "auto, cpu, cuda or cuda:N";

/// The device that a name requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceSpec {
    /// A GPU if there is one.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this index.
    Cuda(usize),
}

/// Parses a device name; `None` if it is invalid.
pub fn parse(name: &str) -> Option<DeviceSpec> {
    match name {
        "auto" => Some(DeviceSpec::Auto),
        "cpu" => Some(DeviceSpec::Cpu),
        "cuda" => Some(DeviceSpec::Cuda(0)),
        _ => name.strip_prefix("cuda:")?.parse().ok().map(DeviceSpec::Cuda),
    }
}

/// Finds the device on this machine. If it is a GPU, this process uses it from now on.
///
/// # Errors
/// Returns an error if the name is invalid, or if this machine or this libtorch has no such
/// device.
pub fn resolve(name: &str) -> Result<Device> {
    let spec = parse(name)
        .ok_or_else(|| Error::Config(vec![format!("device: expected {EXPECTED}, got '{name}'")]))?;
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    let device = match spec {
        DeviceSpec::Cpu => Device::Cpu,
        DeviceSpec::Auto if count > 0 => Device::Cuda(0),
        DeviceSpec::Auto => Device::Cpu,
        DeviceSpec::Cuda(index) if index < count => Device::Cuda(index),
        DeviceSpec::Cuda(_) => return Err(Error::NoDevice { name: name.to_owned(), count }),
    };
    torch_ext::set_current_device(device)?;
    Ok(device)
}

/// Returns the device for one of several processes: on each machine, the first uses GPU 0, the
/// next GPU 1, and so on.
///
/// # Errors
/// As [`resolve`], and if several processes request the same GPU.
pub fn of_process(name: &str, launch: &Launch) -> Result<Device> {
    if launch.size == 1 {
        return resolve(name);
    }
    match parse(name) {
        Some(DeviceSpec::Cuda(_)) if name != "cuda" => Err(Error::Config(vec![format!(
            "run.device: {} processes share no GPU: must be auto, cuda or cpu (got '{name}')",
            launch.size
        )])),
        Some(DeviceSpec::Cuda(_)) => resolve(&format!("cuda:{}", launch.local_rank)),
        Some(DeviceSpec::Auto) if Cuda::device_count() > 0 => {
            resolve(&format!("cuda:{}", launch.local_rank))
        }
        _ => resolve(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for (name, expect) in [
            ("auto", Some(DeviceSpec::Auto)),
            ("cpu", Some(DeviceSpec::Cpu)),
            ("cuda", Some(DeviceSpec::Cuda(0))),
            ("cuda:3", Some(DeviceSpec::Cuda(3))),
            ("cuda:", None),
            ("gpu", None),
            ("cuda:-1", None),
        ] {
            assert_eq!(parse(name), expect, "{name}");
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_a_sentence() {
        let error = resolve("cuda:4096").unwrap_err();
        assert!(error.to_string().contains("is not available"), "{error}");
        assert!(matches!(resolve("gpu"), Err(Error::Config(_))));
        assert_eq!(resolve("cpu").unwrap(), Device::Cpu);
    }
}
