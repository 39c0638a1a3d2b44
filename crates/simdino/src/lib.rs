#![doc = include_str!("../README.md")]
//!
//! # Overview
//!
//! [`RunConfig::of`] provides the published settings of a method and [`recipes`] the files of
//! `configs/`; [`config::from_document`] applies a document and overrides to them, and
//! [`assemble`] turns a config into the inputs of the training loop.
//! [`images`] opens the dataset of a run, and [`weights`] its backbone. [`self_check`] compares
//! the computations of a device with the CPU. [`numerics`] applies process-wide settings.
//! [`exchanges`] counts what the processes of a run exchange, and [`links`] estimates how long that
//! takes. [`costs`] estimates the operations of a step.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod assemble;
pub mod config;
pub mod costs;
pub mod device;
mod error;
pub mod exchanges;
pub mod images;
pub mod links;
pub mod numerics;
pub mod recipes;
pub mod self_check;
pub mod weights;

pub use config::RunConfig;
pub use error::{Error, Result};
