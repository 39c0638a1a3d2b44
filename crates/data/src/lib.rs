//! Image sources, decoding, deterministic multi-crop and an ordered parallel loader: bytes in,
//! u8 batches out.
//!
//! The path of an image: [`source`] (folder, list, tar shards, synthetic) lists and reads it,
//! [`decode`] turns its bytes into pixels, [`transform`] cuts crops from them, [`loader`]
//! does all this on its own threads and delivers batches in order; [`sampler`] says which image
//! stands where. Every random draw is a pure function of (seed, epoch, sample, purpose), see
//! [`rng`], so results depend neither on the number of threads nor on where a run was interrupted.
//!
//! This crate knows no tensors: batches are [`ndarray`] arrays of u8, normalised elsewhere.
//!
//! Features, off by default: `parquet` reads Hugging Face image datasets, `remote` reads shards and
//! parquet files behind addresses.
//!
//! # Example
//!
//! Crops of drawn images; any tensor library takes over from the bytes of a batch.
//!
//! ```
//! use std::sync::Arc;
//!
//! use data::loader::{LoaderConfig, Position, TrainLoader};
//! use data::transform::MultiCrop;
//! use data::{AugmentConfig, DataConfig, SourceKind, SyntheticConfig};
//!
//! # fn main() -> data::Result<()> {
//! // `path: "photos".into()` instead reads a folder, a list or tar shards.
//! let dataset = Arc::new(data::open(&DataConfig {
//!     source: SourceKind::Synthetic,
//!     synthetic: SyntheticConfig { count: 64, size: 48, seed: 0 },
//!     ..DataConfig::default()
//! })?);
//! let augment = AugmentConfig {
//!     global_crops_size: 32,
//!     local_crops_size: 16,
//!     local_crops_number: 4,
//!     ..AugmentConfig::default()
//! };
//! let config = LoaderConfig {
//!     seed: 0,
//!     global_batch: 16,
//!     accumulate: 1,
//!     rank: 0,
//!     world_size: 1,
//!     workers: 0,
//!     prefetch: 2,
//!     max_bad_fraction: 0.1,
//! };
//! let crops = MultiCrop::new(&augment);
//! let mut loader = TrainLoader::new(dataset, crops, config, Position::default())?;
//! for _ in 0..loader.steps_per_epoch() {
//!     let batch = loader.next_batch()?;
//!     // [2 * 16, 32, 32, 3]: all images of the first view, then all of the second.
//!     let (shape, bytes) = (batch.global.dim(), batch.global.as_slice());
//!     assert_eq!((shape, bytes.map(<[u8]>::len)), ((32, 32, 32, 3), Some(32 * 32 * 32 * 3)));
//! }
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod cache;
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
mod storage;
pub mod synthetic;
pub mod throughput;
pub mod transform;

pub use decode;

pub use config::{
    AugmentConfig, BlurKind, CacheKind, DataConfig, MixEntry, Preset, SourceKind, SyntheticConfig,
};
pub use dataset::{Dataset, open};
pub use error::{Error, Result};
pub use pixels::{Image, PixelFormat, Pixels};
