//! Builds objectives from their options.

use crate::Result;
use crate::config::{Method, ObjectiveConfig};
use crate::dino::DinoLoss;
use crate::dinov2::DinoV2Loss;
use crate::objective::Objective;
use crate::simdino::SimDinoLoss;
use crate::simdinov2::SimDinoV2Loss;

impl ObjectiveConfig {
    /// Builds the objective in its initial state.
    ///
    /// # Errors
    /// Returns an error that lists every invalid value.
    pub fn build(&self) -> Result<Box<dyn Objective>> {
        Ok(match self.method {
            Method::SimDino => Box::new(SimDinoLoss::new(&self.simdino)?),
            Method::SimDinoV2 => {
                Box::new(SimDinoV2Loss::new(&self.simdino, &self.ibot, &self.koleo)?)
            }
            Method::Dino => Box::new(DinoLoss::new(&self.dino)?),
            Method::DinoV2 => Box::new(DinoV2Loss::new(&self.dino, &self.ibot, &self.koleo)?),
        })
    }
}
