//! Collects the results of the micro-batches of a step before the step changes anything.

use objectives::health::Signals;
use objectives::{LossOutput, Outputs, Statistics};

use crate::error::Result;
use crate::step::StepAccumulator;

/// The results of a step before anything has changed.
#[derive(Default)]
pub(super) struct Gathered {
    /// The losses.
    pub sum: StepAccumulator,
    /// What the objective needs to update its state after the step.
    pub statistics: Statistics,
    /// Index of each image in the dataset.
    pub samples: Vec<u64>,
}

impl Gathered {
    /// Adds the loss of a micro-batch, and measures the teacher's features if requested.
    pub(super) fn add(
        &mut self,
        mut output: LossOutput,
        teacher: &Outputs,
        look: bool,
        share: f64,
    ) -> Result<()> {
        let signals = look.then(|| Signals::measure(teacher, &output)).transpose()?;
        self.statistics += std::mem::take(&mut output.statistics);
        self.sum.add(&output, signals, share);
        Ok(())
    }
}
