//! One transformer block.

use tch::nn::Module;
use tch::{Tensor, nn};

use crate::attention::Attention;
use crate::config::Dimensions;
use crate::drop_path::DropPath;
use crate::error::Result;
use crate::init;
use crate::mlp::Mlp;
use crate::tokens::Mode;

/// Pre-norm block: `x += drop(attn(norm1(x)))`, then `x += drop(mlp(norm2(x)))`.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    norm2: nn::LayerNorm,
    mlp: Mlp,
    drop_path: DropPath,
}

impl Block {
    /// Parameters `norm1`, `attn`, `norm2`, `mlp`; branches dropped with probability `drop_rate`.
    pub(crate) fn new(path: &nn::Path, dims: &Dimensions, drop_rate: f64) -> Result<Self> {
        let dim = dims.embed_dim;
        Ok(Self {
            norm1: init::layer_norm(&(path / "norm1"), dim),
            attn: Attention::new(&(path / "attn"), dim, dims.num_heads)?,
            norm2: init::layer_norm(&(path / "norm2"), dim),
            mlp: Mlp::new(&(path / "mlp"), dim, dims.mlp_ratio * dim)?,
            drop_path: DropPath::new(drop_rate),
        })
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attended = self.attn.forward(&self.norm1.forward(x));
        self.feed_forward(&self.drop_path.add(x, &attended, mode), mode)
    }

    /// The class token of [`Self::forward`] alone, `[B, T, D]` to `[B, 1, D]`. For the last block:
    /// nothing reads the other tokens there, so their queries and their MLP are not computed.
    pub(crate) fn forward_cls(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attended = self.attn.forward_cls(&self.norm1.forward(x)); // [B, T, D] -> [B, 1, D]
        self.feed_forward(&self.drop_path.add(&x.narrow(1, 0, 1), &attended, mode), mode)
    }

    /// Attention maps of this block, `[B, T, D]` to `[B, H, T, T]`.
    pub(crate) fn attention_maps(&self, x: &Tensor) -> Tensor {
        self.attn.maps(&self.norm1.forward(x))
    }

    fn feed_forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let hidden = self.mlp.forward(&self.norm2.forward(x));
        self.drop_path.add(x, &hidden, mode)
    }
}
