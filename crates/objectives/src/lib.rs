#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`mod@coding_rate`] implements the central term of the paper: value and closed-form gradient
//! for one or many covariances at once. [`gradient_scale`] bounds both and derives rules for the
//! weight `gamma`. [`simdino`], [`simdinov2`], [`dino`], and [`dinov2`] are the objectives: they
//! define what is compared with what, and how it is weighted. Each implements
//! [`objective::Objective`] and is built by [`config::ObjectiveConfig::build`]. [`health`] reports
//! in plain words when one of them has collapsed.

#![forbid(unsafe_code)]

mod balance;
mod build;
mod cholesky;
pub mod coding_rate;
mod compression;
pub mod config;
mod deferred;
pub mod dino;
pub mod dinov2;
mod error;
pub mod gradient_scale;
pub mod health;
pub mod held;
mod ibot;
pub mod inputs;
pub mod koleo;
pub mod objective;
mod prototypes;
mod rate_weights;
mod rows;
pub mod simdino;
pub mod simdinov2;
pub mod sinkhorn;
mod terms;
mod views;

pub use coding_rate::{CodingRate, RateEvents, RateOptions, coding_rate};
pub use config::{DinoConfig, IbotConfig, KoleoConfig, Method, ObjectiveConfig, SimDinoConfig};
pub use deferred::Deferred;
pub use dino::DinoLoss;
pub use dinov2::DinoV2Loss;
pub use error::{Error, Result};
pub use inputs::{Inputs, MaskWeights, Outputs, StepContext};
pub use objective::{LossOutput, Needs, Objective, Statistics};
pub use simdino::{SimDinoLoss, SimDinoOutput};
pub use simdinov2::SimDinoV2Loss;
