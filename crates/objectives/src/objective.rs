//! The interface of all objectives.
//!
//! An objective is a file with a struct made from its config. It says what it [`Needs`] of the
//! networks, makes a [`LossOutput`] of a (micro-)batch, and keeps whatever it remembers between
//! steps in the open: [`Objective::update`] changes it, once a step and nowhere else;
//! [`Objective::state`] shows it to checkpoints. A new objective is a new file and a new variant
//! of [`crate::config::Method`].

use std::ops::AddAssign;

use tch::Tensor;
use torch_ext::Collective;

use crate::coding_rate::RateEvents;
use crate::inputs::Inputs;
use crate::{Error, Result};

/// Which outputs of the networks an objective looks at, besides class tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Head outputs of masked patches.
    pub patches: bool,
    /// Class tokens of the student's backbone.
    pub backbone: bool,
    /// Scores of prototypes rather than unit rows.
    pub prototypes: bool,
}

/// What an objective says of a (micro-)batch.
#[derive(Debug)]
pub struct LossOutput {
    /// What to minimize, 0-dimensional; its backward reaches the student's outputs.
    pub loss: Tensor,
    /// Values by the name of their metric, 0-dimensional and detached; still on the device.
    /// Their mean over micro-batches is that of the step.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What is known without the device, by the name of the metric.
    pub numbers: Vec<(&'static str, f64)>,
    /// Retries that the coding rate needed.
    pub events: RateEvents,
    /// What [`Objective::update`] wants to know of the step.
    pub statistics: Statistics,
}

impl LossOutput {
    /// The term or number of a metric.
    pub fn value(&self, name: &str) -> Option<f64> {
        let term = self.terms.iter().find(|(key, _)| *key == name);
        term.map(|(_, value)| value.double_value(&[])).or_else(|| {
            self.numbers.iter().find(|(key, _)| *key == name).map(|&(_, number)| number)
        })
    }
}

/// Sums over the rows of a batch. Those of its micro-batches, and of its processes, add up.
#[derive(Debug, Default)]
pub struct Statistics(Vec<(&'static str, Tensor)>);

impl Statistics {
    /// Records a sum; a name occurs once.
    pub fn put(&mut self, name: &'static str, sum: Tensor) {
        self.0.push((name, sum.detach()));
    }

    /// The sum of that name.
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

/// A loss of student and teacher.
pub trait Objective {
    /// What it looks at.
    fn needs(&self) -> Needs;

    /// The loss of one (micro-)batch. Changes nothing.
    ///
    /// The mean over the micro-batches and processes of a step is the loss of the step.
    ///
    /// # Errors
    /// Outputs that are missing, of a wrong shape or (unless [`Inputs::deferred`]) not finite; a process that does not answer.
    fn evaluate(&self, inputs: &Inputs) -> Result<LossOutput>;

    /// Takes in what a step has shown, once it is known that the step is done and not left out.
    ///
    /// # Errors
    /// A process does not answer.
    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        let _ = (statistics, collective);
        Ok(())
    }

    /// Everything that is remembered from step to step, by name.
    fn state(&self) -> Vec<(String, Tensor)> {
        Vec::new()
    }

    /// Puts back what [`Self::state`] gave, on the device of the features.
    ///
    /// # Errors
    /// A name that this objective does not know.
    fn load_state(&mut self, tensors: &[(String, Tensor)]) -> Result<()> {
        no_other_state(tensors, &[])
    }
}

/// Refuses state of other names than these.
pub(crate) fn no_other_state(tensors: &[(String, Tensor)], known: &[&str]) -> Result<()> {
    match tensors.iter().find(|(name, _)| !known.contains(&name.as_str())) {
        Some((name, _)) => Err(Error::State { name: name.clone() }),
        None => Ok(()),
    }
}
