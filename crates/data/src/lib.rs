//! Image sources, decoding, deterministic multi-crop and an ordered parallel loader: bytes in,
//! u8 batches out.
//!
//! The path of an image: [`source`] (folder, list, tar shards, synthetic) lists and reads it,
//! [`decode`] turns its bytes into RGB pixels, [`transform`] cuts crops from them, [`loader`]
//! does all this on its own threads and delivers batches in order; [`sampler`] says which image
//! stands where. Every random draw is a pure function of (seed, epoch, sample, purpose), see
//! [`rng`], so results depend neither on the number of threads nor on where a run was interrupted.
//!
//! This crate knows no tensors: batches are [`ndarray`] arrays of u8, normalised elsewhere.

#![forbid(unsafe_code)]

pub mod check;
pub mod config;
pub mod dataset;
pub mod error;
pub mod loader;
pub mod masking;
pub mod pixels;
pub mod rng;
pub mod sampler;
pub mod source;
pub mod synthetic;
pub mod throughput;
pub mod transform;

pub use decode;

pub use config::{AugmentConfig, BlurKind, DataConfig, Preset, SourceKind, SyntheticConfig};
pub use dataset::{Dataset, open};
pub use error::{Error, Result};
pub use pixels::Pixels;
