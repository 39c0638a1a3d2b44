//! Settings of the optimizer, the length of a run, and what is measured during it. Their defaults
//! are defined only here.

mod every;
mod init;
mod optim;
mod probe;
mod segment_probe;
mod train;

pub use every::EveryEpochs;
pub use init::InitConfig;
pub use optim::{ClipScope, FreezeForm, LrScaling, NoDecay, OptimConfig, OptimizerKind};
pub use probe::{LogisticProbeConfig, ProbeConfig, RankProbeConfig};
pub use segment_probe::SegmentProbeConfig;
pub use train::{Precision, TrainConfig};
