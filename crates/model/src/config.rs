//! Architecture and head of a network. The only place where their defaults live.

use serde::{Deserialize, Serialize};

/// A wrong value: the key relative to the section it stands in, and what to do about it.
pub type Problem = (&'static str, String);

/// Sizes of the vision transformer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// 128 wide, 4 blocks, 4 heads: under 1 M parameters, for demos and tests on a CPU.
    VitNano,
    /// 192 wide, 12 blocks, 3 heads.
    VitTiny,
    /// 384 wide, 12 blocks, 6 heads. The reference's default.
    #[default]
    VitSmall,
    /// 768 wide, 12 blocks, 12 heads.
    VitBase,
    /// 1024 wide, 24 blocks, 16 heads.
    VitLarge,
}

/// Width, depth and heads of an [`Arch`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dimensions {
    /// Width `D` of a token.
    pub embed_dim: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Number of attention heads.
    pub num_heads: i64,
    /// Hidden width of the feed-forward network, in multiples of `D`.
    pub mlp_ratio: i64,
}

impl Arch {
    /// Width, depth and heads.
    pub fn dimensions(self) -> Dimensions {
        let (embed_dim, depth, num_heads) = match self {
            Self::VitNano => (128, 4, 4),
            Self::VitTiny => (192, 12, 3),
            Self::VitSmall => (384, 12, 6),
            Self::VitBase => (768, 12, 12),
            Self::VitLarge => (1024, 24, 16),
        };
        Dimensions { embed_dim, depth, num_heads, mlp_ratio: 4 }
    }
}

/// The backbone. Section `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Size of the transformer.
    pub arch: Arch,
    /// Side of a patch, in pixels.
    pub patch_size: i64,
    /// Side, in pixels, of the image that the positional embedding is made for; other sizes
    /// interpolate it. Usually `augment.global_crops_size`.
    pub image_size: i64,
    /// Channels of the input.
    pub in_channels: i64,
    /// Rate of stochastic depth at the last block, growing linearly from 0; student only. 0.1 in DINO and SimDINO.
    pub drop_path_rate: f64,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            arch: Arch::VitSmall,
            patch_size: 16,
            image_size: 224,
            in_channels: 3,
            drop_path_rate: 0.1,
        }
    }
}

/// The SimDINO projection head: an MLP and an L2 normalisation. Section `head`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadConfig {
    /// Width of the hidden layers; 2048 in the reference.
    pub hidden_dim: i64,
    /// Width `d` of the unit vectors it gives; 256 in the reference.
    pub out_dim: i64,
    /// Number of linear layers; 3 in the reference.
    pub num_layers: i64,
    /// Batch normalisation after each hidden layer; off in the reference.
    pub use_bn: bool,
}

impl Default for HeadConfig {
    fn default() -> Self {
        Self { hidden_dim: 2048, out_dim: 256, num_layers: 3, use_bn: false }
    }
}

impl ModelConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.patch_size < 1 {
            problems.push(("patch_size", format!("must be at least 1 (got {})", self.patch_size)));
        } else if self.image_size < self.patch_size || self.image_size % self.patch_size != 0 {
            problems.push((
                "image_size",
                format!(
                    "must be a multiple of model.patch_size {} (got {})",
                    self.patch_size, self.image_size
                ),
            ));
        }
        if self.in_channels < 1 {
            problems
                .push(("in_channels", format!("must be at least 1 (got {})", self.in_channels)));
        }
        if !(0.0..1.0).contains(&self.drop_path_rate) {
            problems.push((
                "drop_path_rate",
                format!("must be at least 0 and below 1 (got {})", self.drop_path_rate),
            ));
        }
        problems
    }
}

impl HeadConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        [
            ("hidden_dim", self.hidden_dim),
            ("out_dim", self.out_dim),
            ("num_layers", self.num_layers),
        ]
        .into_iter()
        .filter(|&(_, value)| value < 1)
        .map(|(key, value)| (key, format!("must be at least 1 (got {value})")))
        .collect()
    }
}
