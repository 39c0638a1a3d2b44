//! The terms of masked patches and KoLeo, which are added to the loss of class tokens.

use tch::Tensor;

use crate::config::{IbotConfig, KoleoConfig};
use crate::inputs::Inputs;
use crate::koleo::koleo;
use crate::objective::{LossOutput, Needs, Statistics};
use crate::{Error, Result};

/// The terms besides the loss of class tokens, each of which is left out if its weight is 0.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    ibot: IbotConfig,
    koleo: KoleoConfig,
}

impl Terms {
    /// Creates the terms from options that have been checked.
    pub(crate) fn new(ibot: &IbotConfig, koleo: &KoleoConfig) -> Self {
        Self { ibot: ibot.clone(), koleo: koleo.clone() }
    }

    /// Returns what the terms need from the networks besides class tokens.
    pub(crate) fn needs(&self, prototypes: bool) -> Needs {
        let (patches, backbone) = (self.ibot.loss_weight > 0.0, self.koleo.loss_weight > 0.0);
        Needs { patches, backbone, prototypes }
    }

    /// Adds the terms to the loss of class tokens.
    pub(crate) fn add_to(
        &self,
        output: &mut LossOutput,
        inputs: &Inputs,
        patch_loss: impl FnOnce(&mut Statistics) -> Result<Tensor>,
    ) -> Result<()> {
        if self.ibot.loss_weight > 0.0 {
            let loss = patch_loss(&mut output.statistics)?;
            add_term(output, inputs, ("patches", "loss/patches"), &loss, self.ibot.loss_weight)?;
        }
        if self.koleo.loss_weight > 0.0 {
            add_koleo(output, inputs, &self.koleo)?;
        }
        Ok(())
    }
}

/// Adds `weight * term` to the loss and records the term without its weight.
fn add_term(
    output: &mut LossOutput,
    inputs: &Inputs,
    (name, metric): (&'static str, &'static str),
    term: &Tensor,
    weight: f64,
) -> Result<()> {
    inputs.require_finite(term, name, "outputs")?;
    output.loss = &output.loss + term * weight;
    output.terms.push((metric, term.detach()));
    if let Some((_, total)) = output.terms.iter_mut().find(|(name, _)| *name == "loss/total") {
        *total = output.loss.detach();
    }
    Ok(())
}

/// Adds KoLeo on the student's class tokens before the head.
fn add_koleo(output: &mut LossOutput, inputs: &Inputs, config: &KoleoConfig) -> Result<()> {
    let backbone = inputs.student.backbone.as_ref();
    let backbone =
        backbone.ok_or(Error::Missing { what: "class tokens of the student's backbone" })?;
    let (views, batch, width) = backbone.size3()?;
    let groups = inputs.context.groups_of(batch as usize, config.groups, "koleo.groups")?;
    let groups = groups as i64;
    let in_groups = backbone.reshape([views, groups, batch / groups, width]);
    let term = koleo(&in_groups)?;
    add_term(output, inputs, ("koleo", "loss/koleo"), &term, config.loss_weight)
}
