//! The feed-forward network of a block.

use tch::nn::Module;
use tch::{Tensor, nn};

use crate::error::Result;
use crate::init;

/// Two linear layers with the exact (error function) GELU between them.
#[derive(Debug)]
pub(crate) struct Mlp {
    fc1: nn::Linear,
    fc2: nn::Linear,
}

impl Mlp {
    /// Parameters `fc1` `[hidden, D]` and `fc2` `[D, hidden]`, both with bias.
    pub(crate) fn new(path: &nn::Path, dim: i64, hidden: i64) -> Result<Self> {
        Ok(Self {
            fc1: init::linear(&(path / "fc1"), dim, hidden)?,
            fc2: init::linear(&(path / "fc2"), hidden, dim)?,
        })
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        let hidden = self.fc1.forward(x).gelu("none"); // [B, T, D] -> [B, T, hidden]
        self.fc2.forward(&hidden) // -> [B, T, D]
    }
}
