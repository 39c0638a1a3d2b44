//! Training in several processes: launchers, rendezvous, and collective operations.
//!
//! [`Launch`] determines which process this is from a launcher's variables, [`ProcessGroup`]
//! connects it to the others over libtorch's c10d (Gloo for the CPU, NCCL for CUDA devices),
//! [`Collective`] defines the operations that they perform together, and [`Reducer`] averages
//! gradients during the backward pass.
//!
//! If an operation fails, each process determines through the store which of the others have died,
//! have exited with a reason, or are behind, and reports them: see [`crate::Error::Group`].

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
mod traffic;

pub use collective::{Collective, SingleProcess};
pub use group::{ProcessGroup, has_nccl};
pub use launch::{Launch, Launcher};
pub use reducer::{Reducer, ReducerOptions};
pub use rendezvous::{Rendezvous, host_name};
pub use traffic::{Count, Traffic};
