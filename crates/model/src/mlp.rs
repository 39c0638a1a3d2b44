//! The feed-forward network of a block.

use tch::nn::Module;
use tch::{Tensor, nn};
use torch_ext::fused;

use crate::config::Ffn;
use crate::error::Result;
use crate::init::{self, of_linear};

/// A feed-forward network of either kind.
#[derive(Debug)]
pub(crate) enum FeedForward {
    /// Two linear layers, `fc1` `[hidden, D]` and `fc2` `[D, hidden]`, with the exact (error
    /// function) GELU between them.
    Mlp { fc1: nn::Linear, fc2: nn::Linear },
    /// `w3(silu(a) * b)`, where `a` and `b` are the halves of `w12`: `[2 hidden, D]` and `[D,
    /// hidden]`.
    Swiglu { w12: nn::Linear, w3: nn::Linear },
}

impl FeedForward {
    /// Creates the parameters under `path`; both layers have a bias.
    pub(crate) fn new(path: &nn::Path, kind: Ffn, dim: i64, hidden: i64) -> Result<Self> {
        let linear = |name: &str, from, to| init::linear(&(path / name), from, to);
        Ok(match kind {
            Ffn::Mlp => {
                Self::Mlp { fc1: linear("fc1", dim, hidden)?, fc2: linear("fc2", hidden, dim)? }
            }
            Ffn::Swiglu => Self::Swiglu {
                w12: linear("w12", dim, 2 * hidden)?,
                w3: linear("w3", hidden, dim)?,
            },
        })
    }

    /// Returns all parameters of the network.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = &Tensor> {
        let layers = match self {
            Self::Mlp { fc1, fc2 } => [fc1, fc2],
            Self::Swiglu { w12, w3 } => [w12, w3],
        };
        layers.into_iter().flat_map(of_linear)
    }

    /// Applies the network, `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Tensor {
        match self {
            Self::Mlp { fc1, fc2 } => {
                let hidden = fc1.forward(x).gelu("none"); // [B, T, D] -> [B, T, hidden]
                fc2.forward(&hidden) // -> [B, T, D]
            }
            Self::Swiglu { w12, w3 } => {
                let halves = w12.forward(x).chunk(2, -1); // -> 2 x [B, T, hidden]
                w3.forward(&(halves[0].silu() * &halves[1])) // -> [B, T, D]
            }
        }
    }

    /// Computes [`Self::forward`] with fused kernels but without the last bias, which is returned
    /// as well.
    pub(crate) fn forward_fused(&self, x: &Tensor) -> Result<(Tensor, Option<&Tensor>)> {
        let dim = x.size()[2];
        let (hidden, last) = match self {
            Self::Mlp { fc1: nn::Linear { ws, bs: Some(bias) }, fc2 } => {
                let hidden = fused::linear(x, ws, None)?; // [B, T, D] -> [B, T, hidden]
                (fused::bias_gelu(&hidden, bias, dim)?, fc2)
            }
            Self::Mlp { fc1, fc2 } => (fc1.forward(x).gelu("none"), fc2),
            Self::Swiglu { w12, w3 } => {
                let halves = w12.forward(x).chunk(2, -1); // -> 2 x [B, T, hidden]
                (halves[0].silu() * &halves[1], w3)
            }
        };
        Ok((fused::linear(&hidden, &last.ws, None)?, last.bs.as_ref()))
    }
}
