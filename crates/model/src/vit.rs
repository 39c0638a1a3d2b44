//! The vision transformer of DINO, DINOv2, and SimDINO.

use tch::nn::Module;
use tch::{Kind, Tensor, nn};
use torch_ext::fused;

use crate::block::Block;
use crate::checkpoint::{self, SharedBlock};
use crate::config::{ModelConfig, ResidualPrecision};
use crate::drop_path;
use crate::error::{Error, Result, check};
use crate::init;
use crate::patch_embed::PatchEmbed;
use crate::pos_embed::PosEmbed;
use crate::precision::working_kind;
use crate::stream::{FusedPlan, Stream};
use crate::tokens::{Mode, Tokens};

/// A vision transformer with a class token, a learned positional embedding, and the additions of
/// DINOv2 that the configuration enables: registers, mask token, LayerScale, SwiGLU.
///
/// It accepts images of any size whose sides are multiples of the patch size; the positional
/// embedding is interpolated if the grid differs from the one it was made for.
///
/// # Source
/// `VisionTransformer` of DINO (vision_transformer.py at 7c446df), also SimDINO's;
/// `DinoVisionTransformer` of DINOv2 (at b8931f7), also SimDINOv2's.
#[derive(Debug)]
pub struct VisionTransformer {
    config: ModelConfig,
    patch_embed: PatchEmbed,
    cls_token: Tensor,               // [1, 1, D]
    register_tokens: Option<Tensor>, // [1, R, D]
    mask_token: Option<Tensor>,      // [1, D]
    pos_embed: PosEmbed,
    blocks: Vec<SharedBlock>,
    norm: nn::LayerNorm,
}

impl VisionTransformer {
    /// Creates the parameters under `path`, with the names and initial values of the reference.
    /// Draws from torch's generator, so seed it first.
    ///
    /// # Errors
    /// Returns an error if a value in `config` is invalid.
    pub fn new(path: &nn::Path, config: &ModelConfig) -> Result<Self> {
        check("model", config.validate())?;
        let dims = config.arch.dimensions();
        let dim = dims.embed_dim;
        let token = |name, shape: &[i64]| init::normal(path, name, shape, config.token_std);
        let cls_token = token("cls_token", &[1, 1, dim])?;
        let side = config.image_size / config.patch_size;
        let pos_embed = PosEmbed::new(path, side, dim, config.pos_interpolation)?;
        let registers = config.num_register_tokens;
        let register_tokens =
            (registers > 0).then(|| token("register_tokens", &[1, registers, dim])).transpose()?;
        let mask_token =
            config.mask_token.then(|| init::constant(path, "mask_token", &[1, dim], 0.0));
        let mask_token = mask_token.transpose()?;
        let patch_embed =
            PatchEmbed::new(&(path / "patch_embed"), config.in_channels, config.patch_size, dim)?;
        let blocks = (0..dims.depth)
            .map(|i| Block::new(&(path / "blocks" / i), config, i).map(SharedBlock::new))
            .collect::<Result<_>>()?;
        let norm = init::layer_norm(&(path / "norm"), dim, config.norm_eps);
        let config = config.clone();
        Ok(Self {
            config,
            patch_embed,
            cls_token,
            register_tokens,
            mask_token,
            pos_embed,
            blocks,
            norm,
        })
    }

    /// Returns the width `D` of the tokens.
    pub fn embed_dim(&self) -> i64 {
        self.config.arch.dimensions().embed_dim
    }

    /// Returns the number of blocks.
    pub fn depth(&self) -> i64 {
        self.config.arch.dimensions().depth
    }

    /// Returns the configuration of the model.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the tensors other than the parameters that recent passes have read. A recorded pass
    /// (CUDA graph) must keep them alive.
    pub fn constants(&self) -> Vec<Tensor> {
        self.pos_embed.constants()
    }

    /// Returns all tokens after the final norm.
    ///
    /// # Shapes
    /// - `images`: `[B, C, height, width]`, normalized, with the dtype and device of the
    ///   parameters
    ///
    /// # Errors
    /// Returns an error if the model does not accept the shape, dtype, or device of the images.
    pub fn forward(&self, images: &Tensor, mode: Mode) -> Result<Tokens> {
        self.forward_masked(images, None, mode)
    }

    /// Computes [`Self::forward`] with the mask token in place of the masked patches.
    ///
    /// # Shapes
    /// - `masks`: `[B, N]` bool, set for patches to be masked
    ///
    /// # Errors
    /// Same as [`Self::forward`]. Also returns an error if the masks have the wrong shape or type,
    /// or the model has no mask token.
    pub fn forward_masked(
        &self,
        images: &Tensor,
        masks: Option<&Tensor>,
        mode: Mode,
    ) -> Result<Tokens> {
        let (x, grid) = self.embed(images, masks)?;
        let Some((last, before)) = self.blocks.split_last() else {
            return Ok(Tokens::split(&self.normed(&x), grid));
        };
        let plan = self.fused_plan(&x, mode);
        let stream = self.run(before, x, mode, plan.as_ref())?;
        let x = match plan {
            Some(plan) => last.get().forward_fused(stream, &plan)?.added(),
            None => last.get().forward(&stream.added(), mode),
        };
        Ok(Tokens::split(&self.normed(&x), grid))
    }

    /// Returns the class token after the final norm, `[B, D]`. It equals that of
    /// [`Self::forward`], but the last block computes nothing for the other tokens. Use it if you
    /// do not need patches.
    ///
    /// # Errors
    /// Same as [`Self::forward`].
    pub fn forward_cls(&self, images: &Tensor, mode: Mode) -> Result<Tensor> {
        let (mut x, _) = self.embed(images, None)?;
        if let Some((last, before)) = self.blocks.split_last() {
            let plan = self.fused_plan(&x, mode);
            let stream = self.run(before, x, mode, plan.as_ref())?;
            x = match plan {
                Some(plan) => last.get().forward_cls_fused(stream, &plan)?,
                None => last.get().forward_cls(&stream.added(), mode),
            }; // [B, T, D] -> [B, 1, D]
        }
        Ok(self.normed(&x.select(1, 0))) // [B, 1, D] -> [B, D]
    }

    /// Returns the tokens of the last `n` blocks in order, each after the final norm. Runs in
    /// [`Mode::Eval`].
    ///
    /// # Errors
    /// Same as [`Self::forward`]. Also returns an error if `n` is not between 1 and the depth.
    pub fn intermediate_layers(&self, images: &Tensor, n: i64) -> Result<Vec<Tokens>> {
        if !(1..=self.depth()).contains(&n) {
            return Err(Error::Layers { asked: n, depth: self.depth() });
        }
        let (mut x, grid) = self.embed(images, None)?;
        let mut layers = Vec::with_capacity(n as usize);
        for (i, block) in (0..).zip(&self.blocks) {
            x = block.get().forward(&x, Mode::Eval);
            if i >= self.depth() - n {
                layers.push(Tokens::split(&self.normed(&x), grid));
            }
        }
        Ok(layers)
    }

    /// Returns the attention maps of the last block, `[B, H, T, T]` with `T = 1 + R + N`, in fp32
    /// (fp64 stays fp64). Row 0 is the attention of the class token. Runs in [`Mode::Eval`].
    ///
    /// # Errors
    /// Same as [`Self::forward`].
    pub fn last_self_attention(&self, images: &Tensor) -> Result<Tensor> {
        let (last, x) = self.before_last(images)?;
        Ok(last.get().attention_maps(&x))
    }

    /// Returns queries, keys, and values of the last block, each `[B, H, T, D/H]`, with the tokens
    /// in the order of [`Self::last_self_attention`]. Runs in [`Mode::Eval`].
    ///
    /// # Errors
    /// Same as [`Self::forward`].
    pub fn last_qkv(&self, images: &Tensor) -> Result<[Tensor; 3]> {
        let (last, x) = self.before_last(images)?;
        Ok(last.get().qkv(&x))
    }

    /// Returns the last block and its input, `[B, T, D]`.
    fn before_last(&self, images: &Tensor) -> Result<(&SharedBlock, Tensor)> {
        let (x, _) = self.embed(images, None)?;
        let Some((last, before)) = self.blocks.split_last() else {
            return Err(Error::Layers { asked: 1, depth: 0 });
        };
        let plan = self.fused_plan(&x, Mode::Eval);
        Ok((last, self.run(before, x, Mode::Eval, plan.as_ref())?.added()))
    }

    /// Returns how the blocks use fused kernels for tokens `x`; `None` if a block cannot use them,
    /// or if activations are recomputed, in which case memory matters most.
    fn fused_plan(&self, x: &Tensor, mode: Mode) -> Option<FusedPlan> {
        let kind = torch_ext::autocast_kind(x.device())?;
        fused::supported(x.device(), self.embed_dim()).ok()?;
        let fusible = |block: &SharedBlock| block.get().is_fusible(x, kind);
        let plan = self.checkpoint_every(mode) == 0 && self.blocks.iter().all(fusible);
        plan.then(|| FusedPlan {
            kind,
            mode,
            draws: drop_path::draw_all(&self.config, x.size()[0], mode, x.device()),
        })
    }

    /// Returns how many consecutive blocks keep only their joint input for the backward pass; 0 if
    /// all activations are kept.
    fn checkpoint_every(&self, mode: Mode) -> usize {
        let every =
            usize::try_from(self.config.checkpoint_blocks.unwrap_or_default()).unwrap_or_default();
        if mode == Mode::Eval { 0 } else { every }
    }

    /// Runs all blocks except the last. The last one is never checkpointed, because the backward
    /// pass needs its activations first anyway.
    fn run(
        &self,
        before: &[SharedBlock],
        x: Tensor,
        mode: Mode,
        plan: Option<&FusedPlan>,
    ) -> Result<Stream> {
        let Some(plan) = plan else {
            return checkpoint::run(before, x, mode, self.checkpoint_every(mode)).map(Stream::from);
        };
        before
            .iter()
            .try_fold(Stream::from(x), |stream, block| block.get().forward_fused(stream, plan))
    }

    /// Converts images to the input sequence of the first block, `[B, T, D]`, and the patch grid.
    fn embed(&self, images: &Tensor, masks: Option<&Tensor>) -> Result<(Tensor, (i64, i64))> {
        let grid = self.patch_embed.grid(images)?;
        let (expected, got) = (self.pos_embed.weight().kind(), images.kind());
        if got != expected {
            return Err(Error::InputKind { expected, got });
        }
        let (expected, got) = (self.pos_embed.weight().device(), images.device());
        if got != expected {
            return Err(Error::InputDevice { expected, got });
        }
        let mut patches = self.patch_embed.forward(images, grid); // [B, C, h, w] -> [B, N, D]
        if let Some(masks) = masks {
            patches = self.hide(&patches, masks)?;
        }
        let batch = images.size()[0];
        let all = |token: &Tensor| token.expand([batch, -1, -1], false); // [1, n, D] -> [B, n, D]
        let tokens = Tensor::cat(&[all(&self.cls_token), patches], 1); // -> [B, 1 + N, D]
        let tokens = tokens + self.pos_embed.for_grid(grid);
        let Some(registers) = &self.register_tokens else {
            return Ok((self.residual(tokens), grid));
        };
        // Registers have no position in the image, so they are inserted after the positions have
        // been added.
        let (cls, patches) = (tokens.narrow(1, 0, 1), tokens.narrow(1, 1, grid.0 * grid.1));
        Ok((self.residual(Tensor::cat(&[cls, all(registers), patches], 1)), grid))
    }

    /// Rounds tokens to bf16 if the residual stream is configured to be in bf16 and autocast has
    /// the activations in bf16.
    fn residual(&self, tokens: Tensor) -> Tensor {
        let bf16 = self.config.residual_precision == ResidualPrecision::Bf16
            && torch_ext::autocast_kind(tokens.device()) == Some(Kind::BFloat16);
        if bf16 { tokens.to_kind(Kind::BFloat16) } else { tokens }
    }

    /// Applies the final norm, in fp32 (fp64 if the network is) even if the tokens are in bf16.
    fn normed(&self, x: &Tensor) -> Tensor {
        self.norm.forward(&x.to_kind(working_kind(x)))
    }

    /// Replaces masked patches by the mask token, `[B, N, D]`.
    fn hide(&self, patches: &Tensor, masks: &Tensor) -> Result<Tensor> {
        let Some(token) = &self.mask_token else { return Err(Error::NoMaskToken) };
        let expected = &patches.size()[..2];
        if masks.size() != expected || masks.kind() != Kind::Bool {
            let (expected, got) = (expected.to_vec(), masks.size());
            return Err(Error::Masks { expected, got, kind: masks.kind() });
        }
        // Autocast may have reduced the precision of the patches, but not that of the parameter.
        let token = token.to_kind(patches.kind()).unsqueeze(0); // [1, D] -> [1, 1, D]
        Ok(token.where_self(&masks.unsqueeze(-1), patches))
    }
}
