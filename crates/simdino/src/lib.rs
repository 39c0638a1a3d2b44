#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`RunConfig::of`] has the recipes, [`config::from_document`] lays a document and overrides on them, and
//! [`assemble`] makes of a config what the training loop takes. [`weights`] opens the backbone of a run.

#![forbid(unsafe_code)]

pub mod assemble;
pub mod config;
pub mod device;
pub mod error;
pub mod weights;

pub use config::RunConfig;
pub use error::{Error, Result};
