#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`source`] lists images and reads their bytes, [`decode`] turns the bytes into pixels,
//! [`augment`] cuts crops from them, and [`loader`] runs all of this on its own threads and
//! delivers batches in order. [`sampler`] decides which image goes where in which batch,
//! [`masking`] chooses the patches to hide, and every random number comes from [`augment::rng`].

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod batch;
mod cache;
pub mod check;
mod config;
mod dataset;
pub mod dense;
mod error;
pub mod loader;
pub mod masking;
mod permutation;
pub mod sampler;
pub mod source;
mod storage;
pub mod synthetic;
pub mod throughput;

pub use {augment, decode};

pub use config::{CacheKind, DataConfig, MixEntry, SourceKind, SyntheticConfig};
pub use dataset::{Dataset, Inspection, open};
pub use error::{Error, MemoryError, Result};
