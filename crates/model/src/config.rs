//! Architecture and head of a network. Their defaults are defined only here.

use base::check::{Check, Problem};
use serde::{Deserialize, Deserializer, Serialize};

/// Sizes of the vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 128 wide, 4 blocks, 4 heads. Fewer than 1 M parameters, for demos and tests on a CPU.
    VitNano,
    /// 192 wide, 12 blocks, 3 heads.
    VitTiny,
    /// 384 wide, 12 blocks, 6 heads. The default of the published code.
    #[default]
    VitSmall,
    /// 768 wide, 12 blocks, 12 heads.
    VitBase,
    /// 1024 wide, 24 blocks, 16 heads.
    VitLarge,
    /// 896 wide, 18 blocks, 14 heads, with a feed-forward network 2.6 times as wide. This and the
    /// next three are the compute-optimal shapes of Alabdulmohsin et al. (arXiv 2305.13035).
    VitSo150m,
    /// 832 wide, 21 blocks, 13 heads, with a feed-forward network 2.6 times as wide.
    VitSo150m2,
    /// 1024 wide, 24 blocks, 16 heads, with a feed-forward network 3.4 times as wide.
    VitSo300m,
    /// 1152 wide, 27 blocks, 16 heads, with a feed-forward network 3.7 times as wide.
    VitSo400m,
    /// 1536 wide, 40 blocks, 24 heads.
    VitGiant2,
}

/// The feed-forward network of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Ffn {
    /// Two linear layers with GELU between them.
    #[default]
    Mlp,
    /// SwiGLU: `silu(a) * b` of two linear layers, followed by a third. It is two thirds as wide, so
    /// it has about as many parameters.
    Swiglu,
}

impl Ffn {
    /// Returns the hidden width for an architecture.
    pub fn hidden(self, arch: Arch) -> i64 {
        let hidden = arch.dimensions().mlp_hidden;
        match self {
            Self::Mlp => hidden,
            Self::Swiglu => (hidden * 2 / 3 + 7) / 8 * 8, // two thirds, up to a multiple of 8
        }
    }
}

/// How the positional embedding is interpolated to other grids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum PosInterpolation {
    /// Bicubic, with a scale for a grid that is a tenth of a patch larger, as DINO and the first
    /// DINOv2 do.
    #[default]
    Offset,
    /// Bicubic to the size of the grid.
    Size,
    /// Bicubic to the size of the grid with antialiasing, as SimDINOv2 and DINOv2 with registers do.
    Antialias,
}

/// How the rate of stochastic depth varies over the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DropPathSchedule {
    /// From 0 at the first block to the rate at the last, as in DINO.
    #[default]
    Linear,
    /// The same at every block, as in DINOv2.
    Uniform,
}

/// What stochastic depth drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum DropPathForm {
    /// Draws for each image whether its branch is dropped, after computing it, as in DINO.
    #[default]
    Image,
    /// Drops the branches of a fixed share of the batch without computing them, as in DINOv2 for
    /// rates above 0.1.
    Batch,
}

/// Precision of the tokens between blocks when training in bf16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ResidualPrecision {
    /// Single precision, as with autocast in PyTorch.
    #[default]
    Fp32,
    /// Sums and norms are computed in fp32, and the sum after each branch is rounded to bf16. It
    /// takes less time and memory; DINOv2 trains with tokens in fp16.
    Bf16,
}

/// Width, depth, and number of heads of an [`Arch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width `D` of a token.
    pub embed_dim: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Number of attention heads.
    pub num_heads: i64,
    /// Hidden width of the feed-forward network with [`Ffn::Mlp`].
    pub mlp_hidden: i64,
}

impl Arch {
    /// Returns width, depth, and number of heads.
    pub fn dimensions(self) -> Dimensions {
        let (embed_dim, depth, num_heads) = match self {
            Self::VitNano => (128, 4, 4),
            Self::VitTiny => (192, 12, 3),
            Self::VitSmall => (384, 12, 6),
            Self::VitBase => (768, 12, 12),
            Self::VitLarge | Self::VitSo300m => (1024, 24, 16),
            Self::VitSo150m => (896, 18, 14),
            Self::VitSo150m2 => (832, 21, 13),
            Self::VitSo400m => (1152, 27, 16),
            Self::VitGiant2 => (1536, 40, 24),
        };
        let mlp_hidden = match self {
            Self::VitSo150m => 2304,
            Self::VitSo150m2 => 2176,
            Self::VitSo300m => 3456,
            Self::VitSo400m => 4304,
            _ => 4 * embed_dim,
        };
        Dimensions { embed_dim, depth, num_heads, mlp_hidden }
    }
}

/// The backbone. Section `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Size of the transformer.
    pub arch: Arch,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Side, in pixels, of the images that the positional embedding is made for; it is interpolated
    /// for other sizes. Usually `augment.global_crops_size`.
    pub image_size: i64,
    /// Number of channels of the input images.
    pub in_channels: i64,
    /// Rate of stochastic depth (that of the last block, if it grows), for the student only. 0.1 in
    /// DINO and SimDINO, 0.2 in SimDINOv2, 0.3 in DINOv2.
    pub drop_path_rate: f64,
    /// How the rate of stochastic depth varies over the blocks.
    pub drop_path_schedule: DropPathSchedule,
    /// What stochastic depth drops.
    pub drop_path_form: DropPathForm,
    /// Number of learned tokens, besides the class token, that stand for no place in the image
    /// (registers). 4 in SimDINOv2 and in DINOv2 with registers.
    pub num_register_tokens: i64,
    /// Whether there is a learned token that replaces masked patches. Needed by DINOv2 and
    /// SimDINOv2.
    pub mask_token: bool,
    /// Initial factor of each residual branch, which is learned per channel (LayerScale). If it is
    /// absent, there are no such factors. 0.1 in SimDINOv2, 1e-5 in DINOv2.
    pub layer_scale: Option<f64>,
    /// Feed-forward network of each block.
    pub ffn: Ffn,
    /// Divide queries and keys by their root mean square.
    pub qk_norm: bool,
    /// Number of attention heads per block, for weights of other programs that split the width
    /// differently. If it is absent, that of `arch`.
    pub num_heads: Option<i64>,
    /// Constant that is added to the variance in each layer norm. 1e-6 in DINO and DINOv2.
    pub norm_eps: f64,
    /// How the positional embedding is interpolated to grids that it was not made for.
    pub pos_interpolation: PosInterpolation,
    /// Standard deviation of the initial class and register tokens. 0.02 in DINO, 1e-6 in DINOv2.
    pub token_std: f64,
    /// Activation checkpointing: keep only the input of each group of this many blocks, and
    /// recompute the rest in the backward pass. It saves memory and takes about a third more time.
    /// If it is absent, all activations are kept.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    #[serde(deserialize_with = "none_if_zero")]
    pub checkpoint_blocks: Option<i64>,
    /// Precision of the tokens between blocks when training in bf16.
    #[cfg_attr(feature = "schema", schemars(extend("x-on-resume" = "may change")))]
    pub residual_precision: ResidualPrecision,
}

/// Reads 0 as `None`: weight files of simdino 0.1 store 0 if no blocks are checkpointed.
fn none_if_zero<'de, D: Deserializer<'de>>(value: D) -> Result<Option<i64>, D::Error> {
    Ok(Option::deserialize(value)?.filter(|&blocks| blocks != 0))
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            arch: Arch::VitSmall,
            patch_size: 16,
            image_size: 224,
            in_channels: 3,
            drop_path_rate: 0.1,
            drop_path_schedule: DropPathSchedule::Linear,
            drop_path_form: DropPathForm::Image,
            num_register_tokens: 0,
            mask_token: false,
            layer_scale: None,
            ffn: Ffn::Mlp,
            qk_norm: false,
            num_heads: None,
            norm_eps: 1e-6,
            pos_interpolation: PosInterpolation::Offset,
            token_std: 0.02,
            checkpoint_blocks: None,
            residual_precision: ResidualPrecision::Fp32,
        }
    }
}

/// The projection head: an MLP, an L2 normalization, and prototypes if any. Section `head`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HeadConfig {
    /// Width of the hidden layers. 2048 in the published code.
    pub hidden_dim: i64,
    /// Width of the output, which is normalized to length 1. 256 in the published code.
    pub out_dim: i64,
    /// Number of linear layers. 3 in the published code.
    pub num_layers: i64,
    /// Batch normalization after each hidden layer. Off in the published code.
    pub use_bn: bool,
    /// Number of prototypes that the output is scored against. 0 in SimDINO and SimDINOv2, 65536 in
    /// DINO and DINOv2.
    pub prototypes: i64,
    /// Keep all prototypes at length 1. Off in the longer runs of DINO and in DINOv2.
    pub norm_last_layer: bool,
    /// Use a second head of the same shape for masked patches. Off in SimDINOv2 and in DINOv2's
    /// short recipe, on in its long ones.
    pub separate_patch_head: bool,
    /// Width of the output of the second head. If it is absent, `out_dim`. 256, with an `out_dim` of
    /// 384, in DINOv2's long recipes.
    pub patch_out_dim: Option<i64>,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self {
            hidden_dim: 2048,
            out_dim: 256,
            num_layers: 3,
            use_bn: false,
            prototypes: 0,
            norm_last_layer: true,
            separate_patch_head: false,
            patch_out_dim: None,
        }
    }
}

impl ModelConfig {
    /// Returns the hidden width of the feed-forward network.
    pub fn ffn_hidden(&self) -> i64 {
        self.ffn.hidden(self.arch)
    }

    /// Returns the number of attention heads per block.
    pub fn heads(&self) -> i64 {
        self.num_heads.unwrap_or_else(|| self.arch.dimensions().num_heads)
    }

    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        let (width, heads) = (self.arch.dimensions().embed_dim, self.heads());
        check.that("num_heads", heads >= 1 && width % heads == 0, || {
            format!("must divide the width {width} (got {heads})")
        });
        check.positive("norm_eps", self.norm_eps);
        check.at_least("patch_size", self.patch_size, 1);
        let (patch, image) = (self.patch_size, self.image_size);
        check.that("image_size", patch < 1 || (image >= patch && image % patch == 0), || {
            format!("must be a multiple of model.patch_size {patch} (got {image})")
        });
        check.at_least("in_channels", self.in_channels, 1);
        check.below_one("drop_path_rate", self.drop_path_rate);
        check.within("num_register_tokens", self.num_register_tokens, 0..=1024);
        check.positive("layer_scale", self.layer_scale);
        check.at_least("checkpoint_blocks", self.checkpoint_blocks, 1);
        check.not_negative("token_std", self.token_std);
        check.problems()
    }
}

impl HeadConfig {
    /// Returns the width of the head's output: `K` with prototypes, otherwise `d`.
    pub fn width(&self) -> i64 {
        if self.prototypes > 0 { self.prototypes } else { self.out_dim }
    }

    /// Returns the second head, for masked patches; `None` if they share this one.
    pub fn of_patches(&self) -> Option<Self> {
        let out_dim = self.patch_out_dim.unwrap_or(self.out_dim);
        self.separate_patch_head.then(|| Self { out_dim, ..self.clone() })
    }

    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.at_least("hidden_dim", self.hidden_dim, 1);
        check.at_least("out_dim", self.out_dim, 1);
        check.at_least("num_layers", self.num_layers, 1);
        check.at_least("patch_out_dim", self.patch_out_dim, 1);
        check.at_least("prototypes", self.prototypes, 0);
        check.problems()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_config_in_weight_files_of_earlier_versions_is_read() {
        let read = |text: &str| serde_json::from_str::<ModelConfig>(text).unwrap();
        for text in ["{}", r#"{"checkpoint_blocks": 0}"#, r#"{"checkpoint_blocks": null}"#] {
            assert_eq!(read(text), ModelConfig::default(), "{text}");
        }
        assert_eq!(read(r#"{"checkpoint_blocks": 2}"#).checkpoint_blocks, Some(2));
    }
}
