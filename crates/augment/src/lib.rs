#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`MultiCrop`] draws a [`CropPlan`] for each view from a [`CropKey`] and applies it.
//! [`EvalTransform`] is the transform for evaluations. Each operation has its own file and matches
//! Pillow and torchvision value by value, up to the deviations that its documentation states and
//! `tests/parity.rs` verifies.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod blur;
pub mod color;
mod config;
pub mod crop;
mod error;
mod eval;
mod filter;
pub mod gray;
mod isa;
#[cfg(target_arch = "x86_64")]
mod isa_x86;
mod lanes;
mod multicrop;
mod pixels;
mod planes;
#[cfg(feature = "decode")]
mod random_crop;
pub mod resize;
pub mod rng;
pub mod solarize;
mod strip;
mod sum;

#[cfg(feature = "decode")]
pub use decode;

pub use config::{AugmentConfig, BlurKind, Preset};
pub use crop::CropBox;
pub use error::{Error, Result};
pub use eval::EvalTransform;
pub use multicrop::{CropKey, CropPlan, GLOBAL_CROPS, Jitter, MultiCrop};
pub use pixels::Pixels;
pub use planes::Planes;
#[cfg(feature = "decode")]
pub use random_crop::RandomCrop;
pub use resize::Job;
