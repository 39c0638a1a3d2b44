#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`RunConfig::of`] has what each method was published with, [`recipes`] the files of `configs/`, [`config::from_document`] lays a document and overrides on them, and
//! [`assemble`] makes of a config what the training loop takes. [`images`] opens the data set of a run, [`weights`] its backbone.
//! [`self_check`] compares what a device computes with the CPU.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod assemble;
pub mod config;
pub mod device;
mod error;
pub mod images;
pub mod recipes;
pub mod self_check;
pub mod weights;

pub use config::RunConfig;
pub use error::{Error, Result};
