//! Numerical settings of a config that apply to the whole process.

use tch::Device;
use trainer::config::Precision;

use crate::config::{NO_TF32, RunConfig};
use crate::error::{Error, Result};

/// Applies `run.deterministic`, and checks that the device supports `train.precision`. Call it
/// before the first computation on the device.
///
/// # Errors
/// Returns an error if the device does not support the precision, or if the environment rules out
/// deterministic results.
pub fn apply(config: &RunConfig, device: Device) -> Result<()> {
    if config.train.precision == Precision::Tf32 && !device.is_cuda() {
        return Err(Error::Config(vec![format!("train.precision: {NO_TF32}")]));
    }
    if config.run.deterministic {
        let refused = |error| Error::Config(vec![format!("run.deterministic: {error}")]);
        torch_ext::set_deterministic(true).map_err(refused)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_is_refused_on_a_cpu_and_accepted_on_a_gpu() {
        let mut config = RunConfig::default();
        assert!(apply(&config, Device::Cpu).is_ok());
        config.train.precision = Precision::Tf32;
        assert!(apply(&config, Device::Cuda(0)).is_ok());
        let refused = apply(&config, Device::Cpu).unwrap_err().to_string();
        assert!(refused.starts_with("train.precision: tf32") && refused.ends_with("use fp32"));
    }
}
