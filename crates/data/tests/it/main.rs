//! Integration tests of the crate, in one binary, because each binary would compile the image
//! encoders again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bands;
mod blocked;
mod broken;
mod dense;
mod depth;
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
#[cfg(feature = "remote")]
mod remote_server;
mod shards;
mod sources;
mod support;
mod tars;
mod unread;
