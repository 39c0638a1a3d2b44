//! Optimizer settings and the length of a run. These defaults are defined only here.

mod init;
mod optim;
mod probe;
mod train;

pub use init::InitConfig;
pub use optim::{ClipScope, FreezeForm, LrScaling, NoDecay, OptimConfig, OptimizerKind};
pub use probe::ProbeConfig;
pub use train::{Precision, TrainConfig};
