//! The SimDINOv2 loss: SimDINO on class tokens, cosines of masked patches, and optionally KoLeo.
//!
//! ```text
//! loss = simdino(cls)
//!      + ibot.loss_weight * patch_loss
//!      + koleo.loss_weight * koleo(student's backbone)
//! ```
//!
//! The student's global views are masked, and the teacher's are not. Class and patch tokens both
//! pass through the head without a last layer, and patches are compared within the same view.
//!
//! # Source
//! SimDINOv2, `MCRLoss` and `CosinePatchLoss` in simdinov2/loss of RobinWu218/SimDINO@8149fc4.
//!
//! # Deviations
//! Cosines are computed from rows normalized in single precision, where the reference multiplies
//! rows that were normalized in half precision.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::config::{IbotConfig, KoleoConfig, SimDinoConfig};
use crate::error::refuse;
use crate::ibot::PatchPairs;
use crate::inputs::Inputs;
use crate::objective::{LossOutput, Needs, Objective, Statistics};
use crate::simdino::SimDinoLoss;
use crate::terms::Terms;

/// The SimDINOv2 loss; see the module documentation.
#[derive(Debug, Clone)]
pub struct SimDinoV2Loss {
    cls: SimDinoLoss,
    terms: Terms,
}

impl SimDinoV2Loss {
    /// Creates the loss from its options.
    ///
    /// # Errors
    /// Returns an error that lists every invalid value.
    pub fn new(cls: &SimDinoConfig, ibot: &IbotConfig, koleo: &KoleoConfig) -> Result<Self> {
        refuse([
            ("simdino", cls.validate()),
            ("ibot", ibot.validate()),
            ("koleo", koleo.validate()),
        ])?;
        Ok(Self { cls: SimDinoLoss::new(cls)?, terms: Terms::new(ibot, koleo) })
    }
}

impl Objective for SimDinoV2Loss {
    fn needs(&self) -> Needs {
        self.terms.needs(false)
    }

    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        torch_ext::autocast(inputs.student.cls.device(), None, || {
            let mut output = self.cls.evaluate(inputs)?;
            self.terms.add_to(
                &mut output,
                inputs,
                |_| Ok(PatchPairs::of(inputs)?.cosine_loss()),
            )?;
            Ok(output)
        })?
    }

    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        self.cls.update(statistics, collective)
    }

    fn state(&self) -> Vec<(String, Tensor)> {
        self.cls.state()
    }

    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        self.cls.load_state(tensors)
    }
}
