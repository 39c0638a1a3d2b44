//! The interface of all objectives.
//!
//! An objective is a file with a struct that is built from its config. It declares what it
//! [`Needs`] from the networks, computes a [`LossOutput`] for a (micro-)batch, and makes its state
//! explicit: only [`Objective::update`] changes it, once per step, and [`Objective::state`]
//! exports it to checkpoints. Whatever implements [`Objective`] can be trained;
//! only to be a `method` of the program does it need a variant of [`crate::Method`].

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
    /// Whether the heads output scores of prototypes rather than unit rows.
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
    /// Values that are known without the device, by metric name.
    pub numbers: Vec<(&'static str, f64)>,
    /// Retries that the coding rate needed.
    pub events: RateEvents,
    /// The input that [`Objective::update`] needs from the step.
    pub statistics: Statistics,
}

impl LossOutput {
    /// Creates the result of an objective that has a loss and nothing else to report.
    pub fn of(loss: Tensor) -> Self {
        Self {
            loss,
            terms: Vec::new(),
            numbers: Vec::new(),
            events: RateEvents::default(),
            statistics: Statistics::default(),
        }
    }

    /// Returns the term or number of a metric.
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
    /// Returns which outputs it uses.
    fn needs(&self) -> Needs;

    /// Computes the loss of one (micro-)batch. Changes no state.
    ///
    /// The mean over the micro-batches and processes of a step is the loss of the step, except where targets
    /// are balanced over the micro-batch at hand (`dino.centering: sinkhorn_knopp`).
    ///
    /// # Errors
    /// Returns an error if outputs are missing, have the wrong shape, or (unless
    /// [`Inputs::deferred`]) are not finite, or if a process does not respond.
    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput>;

    /// Updates the state with the statistics of a step, after it is certain that the step was not
    /// skipped.
    ///
    /// # Errors
    /// A process does not answer.
    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        let _ = (statistics, collective);
        Ok(())
    }

    /// Returns all state that is kept from step to step, by name.
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
