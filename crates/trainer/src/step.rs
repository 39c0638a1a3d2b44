//! Inputs and outputs of one optimizer step.

use objectives::LossOutput;
use objectives::health::Signals;
use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::clip::GradNorms;
use crate::error::Result;
use crate::schedule::StepValues;

/// Inputs of a step.
#[derive(Debug, Clone, Copy)]
pub struct StepRequest {
    /// Values of the schedules.
    pub values: StepValues,
    /// Seed of torch's generators, the same in all processes.
    pub seed: u64,
    /// Whether the step is logged, so that the health of the features and the size of the update
    /// are measured, too.
    pub log_metrics: bool,
}

/// Outputs of one step. Tensors stay on the device; reading them waits for it.
pub struct StepOutput {
    /// Loss of the step, 0-dimensional.
    pub loss: Tensor,
    /// Parts of the loss and related values, 0-dimensional, by metric name.
    pub terms: Vec<(&'static str, Tensor)>,
    /// Values that the objective used to compute them, by metric name.
    pub numbers: Vec<(&'static str, f64)>,
    /// Health of the features in the last micro-batch, if requested.
    pub signals: Option<Signals>,
    /// L2 norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// L2 norm of the gradients of the backbone and of each head, by name, before clipping.
    pub grad_norms: Vec<(String, f64)>,
    /// Mean norm of the update of some matrices relative to their own norm, if requested.
    pub update_ratio: Option<Tensor>,
    /// Number of times that a coding rate's factorization was retried, with jitter or in fp64.
    pub rate_retries: u64,
}

/// How a step ended.
pub enum StepResult {
    /// Student and teacher were updated.
    Done(StepOutput),
    /// Nothing was changed.
    Skipped(Skipped),
}

/// Why a step was skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    /// What was not finite, as a clause.
    pub what: String,
    /// Whether only the factor of the loss for half precision was too large, which is normal and
    /// corrects itself.
    pub scaling: bool,
    /// Images of the step in this process, by index in the dataset.
    pub samples: Vec<u64>,
}

/// Accumulates the micro-batches of a step.
#[derive(Default)]
pub struct StepAccumulator(Option<StepOutput>);

impl StepAccumulator {
    /// Adds one micro-batch, whose weight in the mean is `share`.
    pub fn add(&mut self, output: &LossOutput, signals: Option<Signals>, share: f64) {
        let loss = output.loss.detach() * share;
        let terms = output.terms.iter().map(|(name, term)| (*name, term * share));
        let step = match &mut self.0 {
            Some(step) => {
                step.loss = &step.loss + loss;
                for ((_, sum), (_, term)) in step.terms.iter_mut().zip(terms) {
                    *sum = &*sum + term;
                }
                step
            }
            None => self.0.insert(StepOutput {
                loss,
                terms: terms.collect(),
                numbers: Vec::new(),
                signals: None,
                grad_norm: f64::NAN, // known once all gradients of the step are there
                grad_norms: Vec::new(),
                update_ratio: None,
                rate_retries: 0,
            }),
        };
        step.numbers.clone_from(&output.numbers);
        step.signals = signals;
        step.rate_retries += u64::from(output.events.jitter + output.events.fp64);
    }

    /// Returns the output of the step after its update; `None` if there was no micro-batch.
    pub fn finish(self, norms: GradNorms, update_ratio: Option<Tensor>) -> Option<StepOutput> {
        let GradNorms { all: grad_norm, by_module: grad_norms, .. } = norms;
        self.0.map(|step| StepOutput { grad_norm, grad_norms, update_ratio, ..step })
    }
}

impl StepOutput {
    /// Replaces the loss and terms of this process by their means over all processes.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub fn average(&mut self, collective: &dyn Collective) -> Result<()> {
        if collective.size() == 1 {
            return Ok(());
        }
        let own = self.terms.iter().map(|(_, term)| term).chain([&self.loss]);
        let own: Vec<Tensor> = own.map(|term| term.to_kind(Kind::Double)).collect();
        let mut all = Tensor::stack(&own, 0); // [terms + 1]
        collective.all_reduce_sum(&mut all)?;
        let means = (all / collective.size() as f64).unbind(0);
        for ((_, term), mean) in self.terms.iter_mut().zip(&means) {
            *term = mean.shallow_clone();
        }
        if let Some(loss) = means.last() {
            self.loss = loss.shallow_clone();
        }
        Ok(())
    }
}

/// Returns the seed of torch's generators at a step, independent of earlier steps.
pub(crate) fn step_seed(seed: u64, step: u64) -> u64 {
    // SplitMix64, so that neighboring steps and seeds are unrelated.
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ step.wrapping_add(0x6a09_e667_f3bc_c909);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
