#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Start reading at [`run::run`], then continue with [`learner::Learner::step`].

#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

pub mod branch;
pub mod checkpoint;
mod clip;
pub mod config;
mod ema;
mod error;
pub mod feed;
pub mod files;
mod forward;
mod grad_scaler;
pub mod input;
pub mod learner;
mod meter;
pub mod metrics;
mod optim;
mod param_groups;
pub mod plan;
pub mod probe;
pub mod processes;
mod recorder;
pub mod run;
pub mod schedule;
pub mod start;
pub mod step;
mod warnings;

pub use error::{Error, Result};
