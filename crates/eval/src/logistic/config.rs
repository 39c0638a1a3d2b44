//! Settings of logistic regression.

use serde::Serialize;
use tch::Device;

use crate::record::Record;

/// Settings of logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogisticConfig {
    /// Candidates for `C`, the weight of the cross-entropy relative to the penalty; 45 values from
    /// 1e-6 to 1e5 in DINOv2.
    pub c: Vec<f64>,
    /// Maximum number of iterations for each candidate; 1,000 in DINOv2.
    pub max_iterations: usize,
    /// Fits stop at an iteration that lowers the loss by a smaller fraction than this; 1e-12 in
    /// DINOv2.
    pub tolerance: f64,
    /// Fraction of the training images that is held out to choose `C`; a tenth in DINOv2.
    pub held_out: f64,
    /// Seed for choosing the held-out images.
    pub seed: u64,
    /// Device of the regression.
    #[serde(skip)]
    pub device: Device,
}

impl Default for LogisticConfig {
    /// Returns DINOv2's settings, on the CPU.
    fn default() -> Self {
        let exponent = |i: u32| -6.0 + 11.0 * f64::from(i) / 44.0;
        Self {
            c: (0..45).map(|i| 10f64.powf(exponent(i))).collect(),
            max_iterations: 1000,
            tolerance: 1e-12,
            held_out: 0.1,
            seed: 0,
            device: Device::Cpu,
        }
    }
}

impl LogisticConfig {
    /// Returns settings with every fourth candidate of DINOv2, from 1e-6 to 1e5, and fits that stop
    /// earlier. They suit frequent measurements, such as during training.
    pub fn coarse() -> Self {
        let mut config = Self::default();
        config.c = config.c.into_iter().step_by(4).collect();
        (config.max_iterations, config.tolerance) = (200, 1e-6);
        config
    }

    /// Adds the settings to a record.
    pub fn describe(&self, record: &mut Record) {
        record.set("c", self.c.clone());
        record.set("max_iterations", self.max_iterations);
        record.set("tolerance", self.tolerance);
        record.set("held_out", self.held_out);
        record.set("seed", self.seed);
    }
}
