//! The SimDINOv2 loss: SimDINO on class tokens, cosines of masked patches, and KoLeo if asked for.
//!
//! ```text
//! loss = simdino(cls) + patch_weight * patch_loss + koleo_weight * koleo(student's backbone)
//! ```
//!
//! The student's global views are masked, the teacher's are not; both class and patch tokens pass
//! through the head without a last layer, and patches are compared within the same view.
//!
//! # Source
//! SimDINOv2, `MCRLoss` and `CosinePatchLoss` in simdinov2/loss of RobinWu218/SimDINO@8149fc4.
//!
//! # Deviations
//! Cosines are taken of normalised rows in single precision, where the reference multiplies rows
//! that were normalised in half precision.

use tch::Tensor;
use torch_ext::Collective;

use crate::config::{SimDinoConfig, TermsConfig};
use crate::inputs::{Inputs, require_finite};
use crate::koleo::koleo;
use crate::objective::{LossOutput, Needs, Objective, Statistics};
use crate::patches::Patches;
use crate::simdino::SimDinoLoss;
use crate::{Error, Result};

/// The SimDINOv2 loss; see the module's text.
#[derive(Debug, Clone)]
pub struct SimDinoV2Loss {
    cls: SimDinoLoss,
    terms: TermsConfig,
}

impl SimDinoV2Loss {
    /// The loss that the options describe.
    ///
    /// # Errors
    /// Values that cannot be.
    pub fn new(cls: &SimDinoConfig, terms: &TermsConfig) -> Result<Self> {
        check(terms)?;
        Ok(Self { cls: SimDinoLoss::new(cls)?, terms: terms.clone() })
    }
}

impl Objective for SimDinoV2Loss {
    fn needs(&self) -> Needs {
        Needs {
            patches: self.terms.patch_weight > 0.0,
            backbone: self.terms.koleo_weight > 0.0,
            prototypes: false,
        }
    }

    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput> {
        torch_ext::autocast(inputs.student.cls.device(), None, || {
            let mut output = self.cls.evaluate(inputs)?;
            if self.terms.patch_weight > 0.0 {
                let loss = Patches::of(inputs)?.cosine_loss();
                add_term(&mut output, ("patches", "loss/patches"), &loss, self.terms.patch_weight)?;
            }
            if self.terms.koleo_weight > 0.0 {
                add_koleo(&mut output, inputs, &self.terms)?;
            }
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

/// Refuses values that cannot be.
pub(crate) fn check(terms: &TermsConfig) -> Result<()> {
    let problems = terms.validate();
    if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
}

/// Adds `weight * term` to the loss and notes the term without its weight.
pub(crate) fn add_term(
    output: &mut LossOutput,
    (name, metric): (&'static str, &'static str),
    term: &Tensor,
    weight: f64,
) -> Result<()> {
    require_finite(term, name, "outputs")?;
    output.loss = &output.loss + term * weight;
    output.terms.push((metric, term.detach()));
    if let Some((_, total)) = output.terms.iter_mut().find(|(name, _)| *name == "loss/total") {
        *total = output.loss.detach();
    }
    Ok(())
}

/// Adds KoLeo of the student's class tokens before the head.
pub(crate) fn add_koleo(
    output: &mut LossOutput,
    inputs: &Inputs,
    terms: &TermsConfig,
) -> Result<()> {
    let backbone = inputs.student.backbone.as_ref();
    let backbone =
        backbone.ok_or(Error::Missing { what: "class tokens of the student's backbone" })?;
    let (views, batch, width) = backbone.size3()?;
    let groups = inputs.context.groups_of(batch as usize, terms.koleo_groups)? as i64;
    let in_groups = backbone.reshape([views, groups, batch / groups, width]);
    add_term(output, ("koleo", "loss/koleo"), &koleo(&in_groups)?, terms.koleo_weight)
}
