//! Training in several processes: launchers, rendezvous, and collective operations.
//!
//! [`Launch`] determines which process this is from a launcher's variables, [`ProcessGroup`]
//! connects it to the others over libtorch's c10d (Gloo for the CPU, NCCL for CUDA devices),
//! [`Collective`] defines the operations that they perform together, and [`Reducer`] averages
//! gradients during the backward pass.
//!
//! ```no_run,standalone_crate
//! # fn main() -> torch_ext::Result<()> {
//! # let (named, batches): (Vec<(String, tch::Tensor)>, Vec<tch::Tensor>) = Default::default();
//! # fn loss_of(_: &tch::Tensor) -> tch::Tensor { unimplemented!() }
//! use std::time::Duration;
//! use torch_ext::{Collective, Launch, ProcessGroup, Reducer, ReducerOptions};
//!
//! let launch = Launch::from_variables(&std::env::vars().collect())?;
//! let group = ProcessGroup::join(launch.rendezvous(Duration::from_secs(600)))?;
//! group.require_same(&named)?; // same parameters everywhere
//! let parameters: Vec<_> = named.iter().map(|(_, p)| p.shallow_clone()).collect();
//! group.broadcast_all(&parameters, 0)?; // with the same values
//! let reducer = Reducer::new(&group, &named, ReducerOptions::default())?;
//! reducer.zero_grad()?;
//! for (number, batch) in batches.iter().enumerate() {
//!     let last = number + 1 == batches.len();
//!     if last {
//!         reducer.prepare_for_forward()?;
//!     }
//!     let loss = loss_of(batch) / batches.len() as f64;
//!     if last { reducer.backward(&loss)? } else { reducer.accumulate(&loss)? }
//! }
//! // The gradients are the mean over all processes: clip them, step.
//! # Ok(())
//! # }
//! ```
//!
//! If an operation fails, each process finds out through the store which of the others has died,
//! exited with a reason, or is behind, and names it: see [`crate::Error::Group`].

mod collective;
mod failure_report;
mod failure_watcher;
mod greeting;
mod group;
mod launch;
mod reducer;
mod rendezvous;
mod slurm;
mod store;

pub use collective::{Collective, SingleProcess};
pub use group::{ProcessGroup, has_nccl};
pub use launch::{Launch, Launcher};
pub use reducer::{Reducer, ReducerOptions};
pub use rendezvous::{Rendezvous, host_name};
