//! The interface of an update rule, and its inputs.

use tch::Tensor;

use crate::error::Result;
use crate::param_groups::ParamGroup;

/// A parameter group with the rule's state for each parameter.
pub(super) struct Group {
    pub(super) of: ParamGroup,
    /// One list per slot, in the order of [`Update::slots`], with one tensor per parameter.
    pub(super) slots: Vec<Vec<Tensor>>,
}

/// Inputs of one update of a group, apart from its tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepHyperparams {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}

/// A rule that turns gradients into updates.
pub(super) trait Update {
    /// Returns the names of the state kept per parameter, each with whether it is a single number.
    fn slots(&self) -> &'static [(&'static str, bool)];

    /// Updates a group from the gradients of its parameters.
    fn update(&self, group: &mut Group, pace: StepHyperparams) -> Result<()>;
}
