//! The parts of `simdino train`: the folder of the run, its outputs, signals, probes, and
//! processes.

pub mod begin;
pub mod continuation;
pub mod distributed;
pub mod dry_run;
pub mod environment;
pub mod extend;
mod links;
pub mod misfit;
pub mod observer;
pub mod pictures;
pub mod probe;
pub mod run_dir;
pub mod settings;
pub mod signals;
pub mod start;
