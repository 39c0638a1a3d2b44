//! simdino as a library: a typed config with the published recipes of the four methods, and the way
//! from a config to a run.
//!
//! ```no_run
//! use objectives::Method;
//! use simdino::{RunConfig, assemble};
//! use tch::Device;
//! use trainer::learner::Learner;
//! use trainer::processes::Processes;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut config = RunConfig::of(Method::SimDinoV2); // the published recipe
//! config.data.path = "photos".into();
//! config.train.epochs = 20.0;
//! let problems = config.validate();
//! assert!(problems.is_empty(), "{problems:?}");
//!
//! let (dataset, plan) = assemble::open_data(&config)?;
//! let mut learner = Learner::new(assemble::learner_config(&config, Device::Cpu), Processes::Alone)?;
//! let job = assemble::job(&config, dataset, plan, "runs/photos".as_ref(), Processes::Alone)?;
//! # let _ = (&mut learner, job);
//! // trainer::run::run(&job, &mut learner, 0, &mut observer, &mut probes)?;
//! # Ok(())
//! # }
//! ```
//!
//! It deliberately does not read files, print, parse a command line or know YAML: the program in
//! `crates/cli` does. It does not evaluate either: probes come in through [`trainer::probe::Probe`].

#![forbid(unsafe_code)]

pub mod assemble;
pub mod config;
pub mod device;
pub mod error;

pub use config::RunConfig;
pub use error::{Error, Result};
