//! Parameters with the initial values of the reference.
//!
//! Values are drawn on the CPU and then moved, so that a seed gives the same model on every
//! device. Seed torch's generator before construction.

use tch::{Device, Kind, Tensor, nn};

use crate::error::Result;

/// Standard deviation of all weights except the patch embedding.
const STD: f64 = 0.02;
/// Truncation point of the normal distribution; an absolute value in the reference, so 100 sigma.
const CUT: f64 = 2.0;

fn register(path: &nn::Path, name: &str, value: Tensor) -> Tensor {
    path.add(name, value.to_device(path.device()).to_kind(path.kind()), true)
}

fn empty(dims: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_empty(dims, (Kind::Float, Device::Cpu))?)
}

/// Creates a parameter with normal values of standard deviation 0.02, truncated at +-2.
///
/// # Deviations
/// The reference samples by inverting the error function, which turns a uniform draw of exactly -1
/// (one in 2^24) into -infinity and then into a weight of -2. We draw from the normal distribution
/// directly, without these outliers.
pub(crate) fn trunc_normal(path: &nn::Path, name: &str, dims: &[i64]) -> Result<Tensor> {
    let value = empty(dims)?.f_normal_(0.0, STD)?.f_clamp_(-CUT, CUT)?;
    Ok(register(path, name, value))
}

/// Creates a parameter with normal values of standard deviation `std`, not truncated.
pub(crate) fn normal(path: &nn::Path, name: &str, dims: &[i64], std: f64) -> Result<Tensor> {
    Ok(register(path, name, empty(dims)?.f_normal_(0.0, std)?))
}

/// Creates a constant tensor that is saved and loaded like a parameter but not trained.
pub(crate) fn frozen(path: &nn::Path, name: &str, dims: &[i64], value: f64) -> Result<Tensor> {
    let value = Tensor::f_full(dims, value, (Kind::Float, Device::Cpu))?;
    Ok(path.add(name, value.to_device(path.device()).to_kind(path.kind()), false))
}

/// Creates a parameter with a constant value.
pub(crate) fn constant(path: &nn::Path, name: &str, dims: &[i64], value: f64) -> Result<Tensor> {
    Ok(register(path, name, Tensor::f_full(dims, value, (Kind::Float, Device::Cpu))?))
}

/// Creates a parameter with uniform values in `[-bound, bound]`.
pub(crate) fn uniform(path: &nn::Path, name: &str, dims: &[i64], bound: f64) -> Result<Tensor> {
    Ok(register(path, name, empty(dims)?.f_uniform_(-bound, bound)?))
}

/// Creates a linear layer with a truncated normal weight and zero bias.
pub(crate) fn linear(path: &nn::Path, in_dim: i64, out_dim: i64) -> Result<nn::Linear> {
    let ws = trunc_normal(path, "weight", &[out_dim, in_dim])?;
    let bs = Some(constant(path, "bias", &[out_dim], 0.0)?);
    Ok(nn::Linear { ws, bs })
}

/// Creates a layer norm over the last dimension with weight 1 and bias 0.
pub(crate) fn layer_norm(path: &nn::Path, dim: i64, eps: f64) -> nn::LayerNorm {
    let config = nn::LayerNormConfig { eps, ..Default::default() };
    nn::layer_norm(path, vec![dim], config)
}

/// Returns the parameters of a linear layer.
pub(crate) fn of_linear(layer: &nn::Linear) -> impl Iterator<Item = &Tensor> {
    std::iter::once(&layer.ws).chain(&layer.bs)
}
