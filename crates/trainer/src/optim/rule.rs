//! What a rule of optimization is given and what it does.

use tch::Tensor;

use crate::error::Result;
use crate::param_groups::ParamGroup;

/// A group with what the rule remembers of its parameters.
pub(super) struct Group {
    pub(super) of: ParamGroup,
    /// One list a slot, in the order of [`Update::slots`]; one tensor a parameter.
    pub(super) slots: Vec<Vec<Tensor>>,
}

/// What one update of a group needs besides its tensors.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepHyperparams {
    pub(super) lr: f64,
    pub(super) weight_decay: f64,
}

/// A rule that turns gradients into updates.
pub(super) trait Update {
    /// Names of what is remembered of each parameter, and whether it is one number.
    fn slots(&self) -> &'static [(&'static str, bool)];

    /// One update from the gradients that the parameters hold.
    fn update(&self, group: &mut Group, pace: StepHyperparams) -> Result<()>;
}
