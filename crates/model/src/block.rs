//! One transformer block.

use tch::nn::Module;
use tch::{Tensor, nn};

use crate::attention::Attention;
use crate::config::ModelConfig;
use crate::drop_path::DropPath;
use crate::error::Result;
use crate::init;
use crate::layer_scale::LayerScale;
use crate::mlp::FeedForward;
use crate::tokens::Mode;

/// Pre-norm block: `x += drop(ls1(attn(norm1(x))))`, then `x += drop(ls2(mlp(norm2(x))))`.
#[derive(Debug)]
pub(crate) struct Block {
    norm1: nn::LayerNorm,
    attn: Attention,
    ls1: LayerScale,
    norm2: nn::LayerNorm,
    mlp: FeedForward,
    ls2: LayerScale,
    drop_path: DropPath,
}

impl Block {
    /// Parameters `norm1`, `attn`, `ls1`, `norm2`, `mlp`, `ls2` of block `index`.
    pub(crate) fn new(path: &nn::Path, config: &ModelConfig, index: i64) -> Result<Self> {
        let dim = config.arch.dimensions().embed_dim;
        Ok(Self {
            norm1: init::layer_norm(&(path / "norm1"), dim, config.norm_eps),
            attn: Attention::new(&(path / "attn"), dim, config.heads(), config.qk_norm)?,
            ls1: LayerScale::new(&(path / "ls1"), dim, config.layer_scale)?,
            norm2: init::layer_norm(&(path / "norm2"), dim, config.norm_eps),
            mlp: FeedForward::new(&(path / "mlp"), config.ffn, dim, config.ffn_hidden())?,
            ls2: LayerScale::new(&(path / "ls2"), dim, config.layer_scale)?,
            drop_path: DropPath::of_block(config, index),
        })
    }

    /// Its parameters.
    pub(crate) fn parameters(&self) -> Vec<Tensor> {
        let norms = [&self.norm1, &self.norm2];
        let norms = norms.into_iter().flat_map(|norm| norm.ws.iter().chain(&norm.bs));
        let attn = self.attn.parameters().chain(self.ls1.parameters());
        let mlp = self.mlp.parameters().chain(self.ls2.parameters());
        norms.chain(attn).chain(mlp).map(Tensor::shallow_clone).collect()
    }

    /// `[B, T, D]` to `[B, T, D]`.
    pub(crate) fn forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attend = |x: &Tensor| self.ls1.forward(self.attn.forward(&self.norm1.forward(x)));
        let x = self.drop_path.add(x, x, mode, attend);
        self.feed_forward(&x, mode)
    }

    /// The class token of [`Self::forward`] alone, `[B, T, D]` to `[B, 1, D]`. For the last block:
    /// nothing reads the other tokens there, so their queries and their MLP are not computed.
    pub(crate) fn forward_cls(&self, x: &Tensor, mode: Mode) -> Tensor {
        let attend = |x: &Tensor| self.ls1.forward(self.attn.forward_cls(&self.norm1.forward(x)));
        let x = self.drop_path.add(&x.narrow(1, 0, 1), x, mode, attend); // [B, T, D] -> [B, 1, D]
        self.feed_forward(&x, mode)
    }

    /// Queries, keys and values of this block, `[B, T, D]` to three of `[B, H, T, D/H]`.
    pub(crate) fn qkv(&self, x: &Tensor) -> [Tensor; 3] {
        self.attn.project(&self.norm1.forward(x))
    }

    /// Attention maps of this block, `[B, T, D]` to `[B, H, T, T]`.
    pub(crate) fn attention_maps(&self, x: &Tensor) -> Tensor {
        self.attn.maps(&self.norm1.forward(x))
    }

    fn feed_forward(&self, x: &Tensor, mode: Mode) -> Tensor {
        let branch = |x: &Tensor| self.ls2.forward(self.mlp.forward(&self.norm2.forward(x)));
        self.drop_path.add(x, x, mode, branch)
    }
}
