#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`VisionTransformer`] and [`ProjectionHead`] are built from configs and form a [`Network`];
//! [`weights`] reads and writes files.
//!
//! Shape legend used throughout: `B` images, `C` channels, `P` patch side, `N` patches,
//! `R` registers, `T = 1 + R + N` tokens, `D` width, `H` heads, `d` width of the head's output.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod config;
mod error;
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
mod stream;
mod tokens;
mod vit;

pub use config::{
    Arch, Dimensions, DropPathForm, DropPathSchedule, Ffn, HeadConfig, ModelConfig,
    PosInterpolation, ResidualPrecision,
};
pub use error::{Error, Result};
pub use head::ProjectionHead;
pub use network::Network;
pub use tokens::{ImageRange, Mode, Tokens};
pub use vit::VisionTransformer;
