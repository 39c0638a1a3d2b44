//! The configuration of a learner.

use data::batch::BatchGeometry;
use model::normalize::Normalize;
use objectives::ObjectiveConfig;
use tch::Device;

use crate::config::{OptimConfig, Precision};

/// The configuration of a learner.
#[derive(Debug, Clone)]
pub struct LearnerConfig {
    /// Architecture of student and teacher.
    pub model: model::ModelConfig,
    /// Their heads.
    pub head: model::HeadConfig,
    /// The loss.
    pub objective: ObjectiveConfig,
    /// The optimizer.
    pub optim: OptimConfig,
    /// Precision of the networks.
    pub precision: Precision,
    /// The batch of a step, and the part of it that this process handles.
    pub geometry: BatchGeometry,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Mean and deviation of the input's channels; they travel with the weights.
    pub normalize: Normalize,
    /// Which values of deeper images become 0 and 255; written into weight files, so that images are
    /// read alike later.
    pub value_range: Vec<[f64; 2]>,
    /// Where everything lives.
    pub device: Device,
}
