//! The configuration of a learner.

use data::batch::BatchGeometry;
use model::normalize::Normalize;
use objectives::Needs;
use tch::Device;

use crate::config::{OptimConfig, Precision};
use crate::error::{Error, Result};

/// The configuration of a learner.
#[derive(Debug, Clone)]
pub struct LearnerConfig {
    /// Architecture of student and teacher.
    pub model: model::ModelConfig,
    /// Architecture of their heads.
    pub head: model::HeadConfig,
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
    /// Values of each channel that become 0 and 255, for images of more than 8 bits. They are
    /// stored in weight files, so that images are read in the same way later.
    pub value_range: Vec<[f64; 2]>,
    /// Device of the networks and of all computations.
    pub device: Device,
    /// Whether the backbones of a step are recorded as a CUDA graph, where that is possible.
    pub cuda_graph: bool,
}

impl LearnerConfig {
    /// Returns whether the backbones of a step can be recorded: on a CUDA device, with one pass per
    /// step, because a recording cannot accumulate gradients, and without recomputed activations.
    pub(super) fn records_graphs(&self) -> bool {
        self.cuda_graph
            && self.device.is_cuda()
            && self.geometry.accumulate() == 1
            && self.model.checkpoint_blocks.unwrap_or_default() == 0
    }

    /// Returns an error if the networks do not have the outputs that an objective needs.
    pub(super) fn provides(&self, needs: Needs) -> Result<()> {
        let prototypes = self.head.prototypes;
        let problem = match (needs.prototypes, prototypes > 0) {
            (true, false) => "head.prototypes: must be at least 1 for this objective (got 0)",
            (false, true) => {
                return Err(Error::Settings(format!(
                    "head.prototypes: must be 0, because the objective compares unit vectors (got \
                     {prototypes})"
                )));
            }
            _ if needs.patches && !self.model.mask_token => {
                "model.mask_token: must be true, because the objective compares masked patches"
            }
            // Otherwise, the parameters of that head would have no gradient.
            _ if self.head.separate_patch_head && !needs.patches => {
                "head.separate_patch_head: the objective compares no patches, so it must be false"
            }
            _ => return Ok(()),
        };
        Err(Error::Settings(problem.to_owned()))
    }
}
