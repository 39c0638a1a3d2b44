//! The number of steps in a run, and when something is due, derived once from settings and data.

use base::counted;

use crate::config::{EveryEpochs, TrainConfig};
use crate::error::{Error, Result};

/// Step counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Optimizer steps per epoch; a remainder smaller than a batch is dropped.
    pub steps_per_epoch: u64,
    /// Steps that the schedules span.
    pub total_steps: u64,
    /// Steps after which this run ends: `total_steps`, or fewer with `train.stop_after`.
    pub last_step: u64,
    /// Steps between two checkpoints.
    pub checkpoint_every: u64,
    /// Steps between two metrics lines.
    pub log_every: u64,
}

impl Plan {
    /// Plans a run over `num_images` images.
    ///
    /// # Errors
    /// Returns an error if the dataset is smaller than one batch or the run has no steps.
    pub fn new(train: &TrainConfig, num_images: usize) -> Result<Self> {
        let steps_per_epoch = (num_images / train.batch_size.max(1)) as u64;
        if steps_per_epoch == 0 {
            return Err(Error::Settings(format!(
                "train.batch_size {} is larger than the dataset of {}; lower it to {num_images} or \
                 less",
                train.batch_size,
                counted(num_images, "image", "images")
            )));
        }
        let steps = |epochs: f64| (epochs * steps_per_epoch as f64).round() as u64;
        let total_steps = steps(train.epochs);
        if total_steps == 0 {
            return Err(Error::Settings(format!(
                "train.epochs {} is less than one step of {}; raise it",
                train.epochs,
                counted(train.batch_size, "image", "images")
            )));
        }
        let last_step = train.stop_after.unwrap_or(total_steps).min(total_steps);
        Ok(Self {
            steps_per_epoch,
            total_steps,
            last_step,
            checkpoint_every: train.checkpoint_every.unwrap_or(steps_per_epoch),
            log_every: train.log_every.max(1),
        })
    }

    /// Checks that a run can continue after `step` steps; a run that is at its last step can.
    ///
    /// # Errors
    /// Returns an error if the run should have ended before, because its result would not be that
    /// of its last step.
    pub fn check_start(&self, step: u64) -> Result<()> {
        if step <= self.last_step {
            return Ok(());
        }
        let last = self.last_step;
        Err(Error::Settings(format!(
            "the run has already done {step} steps, but train.stop_after or train.epochs ends it \
             after {last}; raise that, or resume from an earlier checkpoint"
        )))
    }

    /// Returns the number of epochs completed after `step` steps.
    pub fn epoch(&self, step: u64) -> f64 {
        step as f64 / self.steps_per_epoch as f64
    }

    /// Returns whether a checkpoint is due after `step` steps.
    pub fn checkpoint_due(&self, step: u64) -> bool {
        step.is_multiple_of(self.checkpoint_every) || step == self.last_step
    }

    /// Returns whether a measurement with this interval is due after `step` steps: at the start, at
    /// the end, and at every interval in between. Without an interval, only the start and the end
    /// have one.
    pub fn probe_due(&self, every: Option<EveryEpochs>, step: u64) -> bool {
        match every {
            Some(EveryEpochs::Never) => false,
            _ if step == 0 || step == self.last_step => true,
            Some(EveryEpochs::Number(epochs)) => step.is_multiple_of(self.steps_between(epochs)),
            None => false,
        }
    }

    /// Returns the number of steps in this many epochs, at least 1.
    pub fn steps_between(&self, epochs: f64) -> u64 {
        ((epochs * self.steps_per_epoch as f64).round() as u64).max(1)
    }

    /// Returns whether metrics are due after `step` steps.
    pub fn log_due(&self, step: u64) -> bool {
        step == 1 || step.is_multiple_of(self.log_every) || step == self.last_step
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_steps_and_due_dates() {
        let train = TrainConfig { batch_size: 30, epochs: 2.5, ..TrainConfig::default() };
        let plan = Plan::new(&train, 100).unwrap();
        assert_eq!((plan.steps_per_epoch, plan.total_steps, plan.last_step), (3, 8, 8));
        assert!(plan.checkpoint_due(3) && plan.checkpoint_due(8) && !plan.checkpoint_due(4));
        let due = |plan: &Plan, every| -> Vec<u64> {
            (0..=plan.total_steps).filter(|&step| plan.probe_due(every, step)).collect()
        };
        assert_eq!(due(&plan, Some(EveryEpochs::Number(1.0))), [0, 3, 6, 8]);
        assert_eq!(due(&plan, Some(EveryEpochs::Number(1e-9))), (0..=8).collect::<Vec<_>>());
        assert_eq!(due(&plan, None), [0, 8]);
        assert_eq!(due(&plan, Some(EveryEpochs::Never)), Vec::<u64>::new());
        let train = TrainConfig { stop_after: Some(5), checkpoint_every: Some(4), ..train };
        let plan = Plan::new(&train, 100).unwrap();
        assert_eq!((plan.total_steps, plan.last_step), (8, 5));
        assert!(plan.checkpoint_due(4) && plan.checkpoint_due(5) && !plan.checkpoint_due(3));
        assert_eq!(due(&plan, None), [0, 5]);
        assert!(plan.check_start(0).is_ok() && plan.check_start(5).is_ok());
        let message = plan.check_start(6).unwrap_err().to_string();
        assert!(message.starts_with("the run has already done 6 steps"), "{message}");
    }

    #[test]
    fn refuses_a_batch_larger_than_the_data() {
        let train = TrainConfig { batch_size: 101, ..TrainConfig::default() };
        let message = Plan::new(&train, 100).unwrap_err().to_string();
        assert!(message.contains("101") && message.contains("100 images"), "{message}");
    }
}
