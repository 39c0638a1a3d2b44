//! The coding rate `R_eps` and the losses built on it.
//!
//! [`mod@coding_rate`] is the mathematics: value and closed-form gradient of one covariance or of many
//! at once. [`simdino`] is the objective: what is compared with what, and how it is weighted. An
//! objective is a file like it: a struct made from its config, and a `forward` from student and
//! teacher features to a loss that composes with autograd, with what is worth logging beside it.
//!
//! This crate knows no model, no optimiser and no process group.

#![forbid(unsafe_code)]

mod cholesky;
pub mod coding_rate;
pub mod config;
mod error;
pub mod simdino;

pub use coding_rate::{CodingRate, RateEvents, coding_rate};
pub use config::SimDinoConfig;
pub use error::{Error, Result};
pub use simdino::{SimDinoLoss, SimDinoOutput, StepContext};
