//! The device that a run requests, and how it is resolved to a device of this machine.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tch::{Cuda, Device};
use torch_ext::Launch;

use crate::error::{Error, Result};

/// The device that a run requests, as written in a config or after `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceSpec {
    /// `auto`: a GPU if there is one, otherwise the CPU.
    #[default]
    Auto,
    /// `cpu`.
    Cpu,
    /// `cuda`: the first GPU, or, if a run has several processes, one GPU for each.
    Cuda,
    /// `cuda:N`: the GPU with the index N, from 0.
    CudaIndex(u16),
}

/// Largest index of a GPU. The schema allows the same number of digits.
const MAX_INDEX: u16 = 9999;

impl FromStr for DeviceSpec {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        let index = || {
            let digits = name.strip_prefix("cuda:")?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|&index| plain && index <= MAX_INDEX).map(Self::CudaIndex)
        };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => index().ok_or_else(|| format!("expected auto, cpu, cuda or cuda:N, got '{name}'")),
        }
    }
}

impl TryFrom<String> for DeviceSpec {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        name.parse()
    }
}

impl From<DeviceSpec> for String {
    fn from(spec: DeviceSpec) -> Self {
        spec.to_string()
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda => f.write_str("cuda"),
            Self::CudaIndex(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl JsonSchema for DeviceSpec {
    fn schema_name() -> Cow<'static, str> {
        "DeviceSpec".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                {
                    "type": "string",
                    "const": "auto",
                    "description": "A GPU if there is one, otherwise the CPU.",
                },
                { "type": "string", "const": "cpu", "description": "The CPU." },
                {
                    "type": "string",
                    "const": "cuda",
                    "description": "The first GPU, or, if a run has several processes, one GPU for each.",
                },
                {
                    "type": "string",
                    "pattern": "^cuda:[0-9]{1,4}$",
                    "description": "The GPU with this index, from 0.",
                },
            ],
        })
    }
}

/// Resolves a device on this machine. If it is a GPU, it becomes the current one of this thread.
///
/// # Errors
/// Returns an error if this machine or this libtorch has no such device.
pub fn resolve(spec: DeviceSpec) -> Result<Device> {
    let count = usize::try_from(Cuda::device_count()).unwrap_or(0);
    let gpu = |index: usize| match index < count {
        true => Ok(Device::Cuda(index)),
        false => Err(Error::NoDevice { name: spec.to_string(), count }),
    };
    let device = match spec {
        DeviceSpec::Auto if count == 0 => Device::Cpu,
        DeviceSpec::Cpu => Device::Cpu,
        DeviceSpec::Auto | DeviceSpec::Cuda => gpu(0)?,
        DeviceSpec::CudaIndex(index) => gpu(index.into())?,
    };
    torch_ext::set_current_device(device)?;
    Ok(device)
}

/// Resolves the device for one process of a run. If there are several, the first process on each
/// machine uses GPU 0, the next GPU 1, and so on.
///
/// # Errors
/// Same as [`resolve`]. Also returns an error if several processes request the same GPU.
pub fn of_process(spec: DeviceSpec, launch: &Launch) -> Result<Device> {
    if launch.size == 1 {
        return resolve(spec);
    }
    let own = u16::try_from(launch.local_rank).unwrap_or(u16::MAX);
    match spec {
        DeviceSpec::CudaIndex(_) => Err(Error::Config(vec![format!(
            "run.device: {} processes cannot share a GPU: must be auto, cuda, or cpu (got \
             '{spec}')",
            launch.size
        )])),
        DeviceSpec::Auto if Cuda::device_count() == 0 => resolve(spec),
        DeviceSpec::Auto | DeviceSpec::Cuda => resolve(DeviceSpec::CudaIndex(own)),
        DeviceSpec::Cpu => resolve(spec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written() {
        for (name, expect) in [
            ("auto", Some(DeviceSpec::Auto)),
            ("cpu", Some(DeviceSpec::Cpu)),
            ("cuda", Some(DeviceSpec::Cuda)),
            ("cuda:3", Some(DeviceSpec::CudaIndex(3))),
            ("cuda:9999", Some(DeviceSpec::CudaIndex(9999))),
            ("cuda:10000", None),
            ("cuda:", None),
            ("cuda:+1", None),
            ("cuda:-1", None),
            ("gpu", None),
            ("", None),
        ] {
            assert_eq!(name.parse().ok(), expect, "{name}");
            if let Some(spec) = expect {
                assert_eq!(spec.to_string(), name);
            }
        }
    }

    #[test]
    fn a_device_that_is_not_there_is_a_sentence() {
        let error = resolve(DeviceSpec::CudaIndex(4096)).unwrap_err();
        assert!(error.to_string().contains("is not available"), "{error}");
        assert_eq!(resolve(DeviceSpec::Cpu).unwrap(), Device::Cpu);
    }
}
