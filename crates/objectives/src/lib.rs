#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`coding_rate`] implements the central term of the paper: value and closed-form gradient for
//! one or many covariances at once. [`gradient_scale`] bounds both and derives rules for the
//! weight `gamma`. [`simdino`], [`simdinov2`], [`dino`], and [`dinov2`] are the objectives: they
//! define what is compared with what, and how it is weighted. Each implements [`Objective`] and is
//! built by [`ObjectiveConfig::build`]. [`health`] reports in plain words when a run has
//! collapsed.

#![forbid(unsafe_code)]
#![warn(unreachable_pub)]

mod balance;
mod build;
mod cholesky;
pub mod coding_rate;
mod compression;
mod config;
mod deferred;
pub mod dino;
pub mod dinov2;
mod error;
pub mod gradient_scale;
pub mod health;
pub mod held;
mod ibot;
mod inputs;
pub mod koleo;
mod objective;
mod prototypes;
mod rate_weights;
mod rows;
pub mod simdino;
pub mod simdinov2;
pub mod sinkhorn;
mod terms;
mod views;

pub use config::{
    Centering, CoeffRule, DinoConfig, EpsSemantics, ExpaSource, Gamma, IbotConfig, KoleoConfig,
    LossForm, Method, ObjectiveConfig, RatePrecision, SimDinoConfig, WarmupForm,
};
pub use deferred::Deferred;
pub use error::{Error, Result};
pub use inputs::{GLOBAL_VIEWS, Inputs, MaskWeights, Outputs, StepContext};
pub use objective::{LossOutput, Needs, Objective, Statistics};
