//! Steps that are skipped because their loss or gradient is not finite.

use crate::error::{Error, Result};
use crate::meter::Meter;
use crate::run::{Observer, TrainingJob};
use crate::step::{Skipped, StepOutput, StepResult};

/// Counts consecutive skipped steps.
#[derive(Default)]
pub(crate) struct SkipCounter {
    in_a_row: u64,
}

impl SkipCounter {
    /// Warns if the run ends with skipped steps.
    pub(crate) fn at_end(&self, observer: &mut dyn Observer) {
        if self.in_a_row > 0 {
            observer.warning(&format!(
                "the last {} steps were skipped, so the network has not learned from them and may \
                 be useless: see the warnings above, and lower optim.base_lr if losses were not \
                 finite",
                self.in_a_row
            ));
        }
    }

    /// Returns the output of a completed step. For a skipped step, warns and returns `None`, or an
    /// error if there were too many in a row.
    pub(crate) fn handle(
        &mut self,
        result: StepResult,
        job: &TrainingJob,
        step: u64,
        meter: &mut Meter,
        observer: &mut dyn Observer,
    ) -> Result<Option<StepOutput>> {
        let skipped = match result {
            StepResult::Done(output) => {
                self.in_a_row = 0;
                meter.retried(output.rate_retries);
                return Ok(Some(output));
            }
            StepResult::Skipped(skipped) => skipped,
        };
        meter.skipped();
        if skipped.scaling {
            return Ok(None); // the loss scale of half precision is found this way
        }
        self.in_a_row += 1;
        let Skipped { what, samples, .. } = skipped;
        let (row, most) = (self.in_a_row, job.train.max_skipped_steps);
        if row <= most {
            let text = format!(
                "step {step} was skipped, because {what} ({row} in a row; more than {most} in a \
                 row end the run)"
            );
            observer.warning(&text);
            return Ok(None);
        }
        let names: Vec<String> =
            samples.iter().map(|&index| job.dataset.name(index as usize)).collect();
        let images = observer.lost(step, &names)?;
        Err(Error::NotFinite { step, what, row, images })
    }
}
