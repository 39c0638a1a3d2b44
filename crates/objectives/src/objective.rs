//! The interface of all objectives.
//!
//! Each objective is a struct in a file of its own and is built from its config. It declares what
//! it [`Needs`] from the networks, computes a [`LossOutput`] for a (micro-)batch, and makes its
//! state explicit: only [`Objective::update`] changes it, once per step, and [`Objective::state`]
//! exports it to checkpoints. Any type that implements [`Objective`] can be trained; it needs a
//! variant of [`crate::Method`] only to become a `method` of the program.

use std::ops::AddAssign;

use tch::Tensor;
use torch_ext::Collective;

use crate::coding_rate::RateEvents;
use crate::inputs::Inputs;
use crate::{Error, Result};

/// The outputs of the networks that an objective uses in addition to class tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Head outputs of masked patches.
    pub patches: bool,
    /// Class tokens of the student's backbone.
    pub backbone: bool,
    /// Scores of prototypes as the heads' outputs, rather than unit rows.
    pub prototypes: bool,
}

/// The result of an objective for a (micro-)batch.
#[derive(Debug)]
pub struct LossOutput {
    /// The loss to minimize, 0-dimensional; its backward pass reaches the student's outputs.
    pub loss: Tensor,
    /// Values by metric name, 0-dimensional and detached; still on the device. The value of a step
    /// is the mean over its micro-batches.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Values that are known on the host without waiting for the device, by metric name.
    pub numbers: Vec<(&'static str, f64)>,
    /// Retries that the coding rate needed.
    pub events: RateEvents,
    /// What [`Objective::update`] needs to know about the step.
    pub statistics: Statistics,
}

impl LossOutput {
    /// Creates the result of an objective that reports nothing but its loss.
    pub fn of(loss: Tensor) -> Self {
        Self {
            loss,
            terms: Vec::new(),
            numbers: Vec::new(),
            events: RateEvents::default(),
            statistics: Statistics::default(),
        }
    }

    /// Returns the term or number with this metric name. Waits for the device if it is a term.
    pub fn value(&self, name: &str) -> Option<f64> {
        let term = self.terms.iter().find(|(key, _)| *key == name);
        term.map(|(_, value)| value.double_value(&[])).or_else(|| {
            self.numbers.iter().find(|(key, _)| *key == name).map(|&(_, number)| number)
        })
    }
}

/// Sums over the rows of a batch. The sums of micro-batches and of processes can be added.
#[derive(Debug, Default)]
pub struct Statistics(Vec<(&'static str, Tensor)>);

impl Statistics {
    /// Records a sum; each name must be unique.
    pub fn put(&mut self, name: &'static str, sum: Tensor) {
        self.0.push((name, sum.detach()));
    }

    /// Returns the sum with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.iter().find(|(key, _)| *key == name).map(|(_, sum)| sum)
    }
}

impl AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        for (name, sum) in other.0 {
            match self.0.iter_mut().find(|(key, _)| *key == name) {
                Some((_, total)) => *total = &*total + sum,
                None => self.0.push((name, sum)),
            }
        }
    }
}

/// A loss that compares a student with a teacher.
pub trait Objective {
    /// Returns which outputs the objective uses.
    fn needs(&self) -> Needs;

    /// Computes the loss of one (micro-)batch. Changes no state.
    ///
    /// The mean over the micro-batches and processes of a step is the loss of the step, except if
    /// targets are balanced within each micro-batch (`dino.centering: sinkhorn_knopp`).
    ///
    /// # Errors
    /// Returns an error if outputs are missing, have the wrong shape, or (unless
    /// [`Inputs::deferred`]) are not finite, or if a process does not respond.
    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput>;

    /// Updates the state with the statistics of a step, once it is certain that the step is not
    /// skipped.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        let _ = (statistics, collective);
        Ok(())
    }

    /// Returns all state that persists from step to step, by name.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// Restores the result of [`Self::state`], on the device of the features.
    ///
    /// # Errors
    /// Returns an error if a name is unknown to this objective.
    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        no_other_state(tensors, &[])
    }
}

/// Returns an error if the state has names other than these.
pub(crate) fn no_other_state(tensors: &[(String, Tensor)], known: &[&str]) -> Result<()> {
    match tensors.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(Error::State { name: name.clone() }),
        None => Ok(()),
    }
}
