//! The training loop of simdino: one step, many steps, and nothing lost in between.
//!
//! It knows tensors and the files of a run. It deliberately does not print, read arguments or
//! YAML, nor does it evaluate: the program (`crates/cli`) joins it with the rest through
//! [`run::Observer`] and [`probe::Probe`].
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
