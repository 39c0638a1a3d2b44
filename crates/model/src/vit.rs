//! The vision transformer of DINO and SimDINO.

use tch::nn::Module;
use tch::{Tensor, nn};

use crate::block::Block;
use crate::config::ModelConfig;
use crate::drop_path::DropPath;
use crate::error::{Error, Result, check};
use crate::init;
use crate::patch_embed::PatchEmbed;
use crate::pos_embed::PosEmbed;
use crate::tokens::{Mode, Tokens};

/// Vision transformer with a class token and a learnt positional embedding.
///
/// Takes images of any size whose sides are multiples of the patch; the positional embedding is
/// interpolated where the grid is not the one it was made for.
///
/// # Source
/// `VisionTransformer` of DINO (vision_transformer.py at 7c446df), also SimDINO's.
#[derive(Debug)]
pub struct VisionTransformer {
    config: ModelConfig,
    patch_embed: PatchEmbed,
    cls_token: Tensor, // [1, 1, D]
    pos_embed: PosEmbed,
    blocks: Vec<Block>,
    norm: nn::LayerNorm,
}

impl VisionTransformer {
    /// Creates the parameters under `path`, named as in the reference, with its initial values.
    /// Draws from torch's generator: seed it before.
    ///
    /// # Errors
    /// A wrong value in `config`.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Result<Self> {
        check("model", config.validate())?;
        let dims = config.arch.dimensions();
        let dim = dims.embed_dim;
        let cls_token = init::trunc_normal(path, "cls_token", &[1, 1, dim])?;
        let pos_embed = PosEmbed::new(path, config.image_size / config.patch_size, dim)?;
        let patch_embed =
            PatchEmbed::new(&(path / "patch_embed"), config.in_channels, config.patch_size, dim)?;
        let blocks = (0..dims.depth)
            .map(|i| {
                let rate = DropPath::rate_at(config.drop_path_rate, i, dims.depth);
                Block::new(&(path / "blocks" / i), &dims, rate)
            })
            .collect::<Result<_>>()?;
        let norm = init::layer_norm(&(path / "norm"), dim);
        Ok(Self { config: config.clone(), patch_embed, cls_token, pos_embed, blocks, norm })
    }

    /// Width `D` of the tokens.
    pub fn embed_dim(&self) -> i64 {
        self.config.arch.dimensions().embed_dim
    }

    /// Number of blocks.
    pub fn depth(&self) -> i64 {
        self.config.arch.dimensions().depth
    }

    /// The configuration it was made from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All tokens after the final norm.
    ///
    /// # Shapes
    /// - `images`: `[B, C, height, width]`, normalised, of the parameters' dtype and device
    ///
    /// # Errors
    /// Images of another shape, dtype or device than the model takes.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tokens> {
        let (mut x, grid) = self.embed(images)?;
        for block in &self.blocks {
            x = block.forward(&x, mode);
        }
        Ok(Tokens::split(&self.norm.forward(&x), grid))
    }

    /// The class token after the final norm, `[B, D]`: equal to that of [`Self::forward`], with
    /// a last block that computes nothing for the other tokens. Use it where patches are not needed.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn forward_cls(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let (mut x, _) = self.embed(images)?;
        if let Some((last, before)) = self.blocks.split_last() {
            for block in before {
                x = block.forward(&x, mode);
            }
            x = last.forward_cls(&x, mode); // [B, T, D] -> [B, 1, D]
        }
        Ok(self.norm.forward(&x.select(1, 0))) // [B, 1, D] -> [B, D]
    }

    /// Tokens of the last `n` blocks, first of them first, each after the final norm. Runs in
    /// [`Mode::Eval`].
    ///
    /// # Errors
    /// As [`Self::forward`], and `n` of 0 or above the depth.
    pub fn intermediate_layers(&self, images: &Tensor, n: i64) -> Result<Vec<Tokens>> {
        if !(1..=self.depth()).contains(&n) {
            return Err(Error::Layers { asked: n, depth: self.depth() });
        }
        let (mut x, grid) = self.embed(images)?;
        let mut layers = Vec::with_capacity(n as usize);
        for (i, block) in (0..).zip(&self.blocks) {
            x = block.forward(&x, Mode::Eval);
            if i >= self.depth() - n {
                layers.push(Tokens::split(&self.norm.forward(&x), grid));
            }
        }
        Ok(layers)
    }

    /// Attention maps of the last block, `[B, H, T, T]` with `T = 1 + N`, in fp32. Row 0 is what
    /// the class token looks at. Runs in [`Mode::Eval`].
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn last_self_attention(&self, images: &Tensor) -> Result<Tensor> {
        let (mut x, _) = self.embed(images)?;
        let Some((last, before)) = self.blocks.split_last() else {
            return Err(Error::Layers { asked: 1, depth: 0 });
        };
        for block in before {
            x = block.forward(&x, Mode::Eval);
        }
        Ok(last.attention_maps(&x))
    }

    /// Images to the sequence that enters the first block, `[B, T, D]`, and the patch grid.
    fn embed(&self, images: &Tensor) -> Result<(Tensor, (i64, i64))> {
        let grid = self.patch_embed.grid(images)?;
        let (expected, got) = (self.pos_embed.weight().kind(), images.kind());
        if got != expected {
            return Err(Error::InputKind { expected, got });
        }
        let (expected, got) = (self.pos_embed.weight().device(), images.device());
        if got != expected {
            return Err(Error::InputDevice { expected, got });
        }
        let patches = self.patch_embed.forward(images, grid); // [B, C, height, width] -> [B, N, D]
        let cls = self.cls_token.expand([images.size()[0], -1, -1], false); // [1, 1, D] -> [B, 1, D]
        let tokens = Tensor::cat(&[cls, patches], 1); // -> [B, 1 + N, D]
        Ok((tokens + self.pos_embed.for_grid(grid), grid))
    }
}
