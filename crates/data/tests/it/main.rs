//! Tests of the crate from outside. One binary: each would compile the image encoders anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bands;
mod blocked;
mod broken;
mod dense;
mod left_out;
mod lists;
mod loader;
mod masks;
mod memory_of_batches;
mod mix_cache;
mod packs;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "remote")]
mod remote;
mod shards;
mod sources;
mod support;
mod tars;
mod unread;
