#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! Start reading at [`run::run`], then [`learner::Learner::step`].

#![forbid(unsafe_code)]

pub mod checkpoint;
mod clip;
pub mod config;
mod ema;
pub mod error;
mod forward;
pub mod input;
pub mod learner;
mod loss_scale;
mod meter;
pub mod metrics;
mod optim;
mod param_groups;
pub mod plan;
pub mod probe;
pub mod processes;
pub mod run;
pub mod schedule;
pub mod side;
pub mod step;
mod symptoms;

pub use error::{Error, Result};
