//! Helpers that add further terms, such as those of masked patches and KoLeo, to the loss of class
//! tokens.

use tch::Tensor;

use crate::config::{IbotConfig, KoleoConfig};
use crate::inputs::Inputs;
use crate::koleo::koleo;
use crate::objective::LossOutput;
use crate::{Error, Result};

/// Returns one error that lists all invalid values.
pub(crate) fn check(ibot: &IbotConfig, koleo: &KoleoConfig) -> Result<()> {
    let problems: Vec<_> = ibot.validate().into_iter().chain(koleo.validate()).collect();
    if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
}

/// Adds `weight * term` to the loss and records the term without its weight.
pub(crate) fn add_term(
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
pub(crate) fn add_koleo(
    output: &mut LossOutput,
    inputs: &Inputs,
    config: &KoleoConfig,
) -> Result<()> {
    let backbone = inputs.student.backbone.as_ref();
    let backbone =
        backbone.ok_or(Error::Missing { what: "class tokens of the student's backbone" })?;
    let (views, batch, width) = backbone.size3()?;
    let groups = inputs.context.groups_of(batch as usize, config.groups)? as i64;
    let in_groups = backbone.reshape([views, groups, batch / groups, width]);
    let term = koleo(&in_groups)?;
    add_term(output, inputs, ("koleo", "loss/koleo"), &term, config.loss_weight)
}
