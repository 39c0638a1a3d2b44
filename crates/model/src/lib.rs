//! Vision transformers and projection heads of the DINO family, and their weight files.
//!
//! Names of parameters are the reference's keys (`blocks.0.attn.qkv.weight`), so weights move to
//! and from Python without a map. This crate knows no loss, no optimiser and no image file.
//!
//! Shape legend used throughout: `B` images, `C` channels, `P` patch side, `N` patches,
//! `R` registers, `T = 1 + R + N` tokens, `D` width, `H` heads, `d` width of the head's output.
#![forbid(unsafe_code)]

pub mod config;
pub mod error;
pub mod normalize;
pub mod weights;

mod attention;
mod block;
mod checkpoint;
mod drop_path;
mod head;
mod init;
mod layer_scale;
mod mlp;
mod network;
mod patch_embed;
mod pos_embed;
mod precision;
mod size;
mod tokens;
mod vit;

pub use config::{Arch, Ffn, HeadConfig, ModelConfig, PosInterpolation};
pub use error::{Error, Result};
pub use head::ProjectionHead;
pub use network::Network;
pub use tokens::{Mode, Part, Tokens};
pub use vit::VisionTransformer;
