//! LayerScale: a learned factor per channel of a residual branch.

use tch::{Tensor, nn};

use crate::error::Result;
use crate::init;

/// Multiplies by `gamma` `[D]`, or does nothing.
///
/// # Source
/// `LayerScale` of DINOv2.
#[derive(Debug)]
pub(crate) struct LayerScale(Option<Tensor>);

impl LayerScale {
    /// Creates the parameter `gamma` with the value `initial`, if enabled.
    pub(crate) fn new(path: &nn::Path, dim: i64, initial: Option<f64>) -> Result<Self> {
        let gamma = initial.map(|value| init::constant(path, "gamma", &[dim], value));
        Ok(Self(gamma.transpose()?))
    }

    /// Returns `gamma` as an iterator over parameters; empty if disabled.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        self.0.iter()
    }

    /// Returns the factors `[D]`, if enabled.
    pub(crate) fn gamma(&self) -> Option<&Tensor> {
        self.0.as_ref()
    }

    /// Scales `x` `[.., D]` by the factors, if enabled.
    pub(crate) fn forward(&self, x: Tensor) -> Tensor {
        match &self.0 {
            Some(gamma) => x * gamma,
            None => x,
        }
    }
}
