//! What one optimizer step is asked, and what it tells.

use objectives::LossOutput;
use objectives::health::Signals;
use tch::{Kind, Tensor};
use torch_ext::Collective;

use crate::clip::GradNorms;
use crate::error::Result;
use crate::schedule::StepValues;

/// What a step needs to know.
#[derive(Debug, Clone, Copy)]
pub struct StepRequest {
    /// Values of the schedules.
    pub values: StepValues,
    /// Seed of torch's generators, the same in all processes.
    pub seed: u64,
    /// Whether the features' health is measured too.
    pub log_metrics: bool,
}

/// What one step tells. Tensors are left on the device; reading them waits for it.
pub struct StepOutput {
    /// Loss of the step, 0-dim.
    pub loss: Tensor,
    /// Parts of the loss and what belongs to them, 0-dim, by the names of their metrics.
    pub terms: Vec<(&'static str, Tensor)>,
    /// What the objective computed them with, by the names of their metrics.
    pub numbers: Vec<(&'static str, f64)>,
    /// How healthy the features are, if it was asked for: of the last micro-batch.
    pub signals: Option<Signals>,
    /// L2 norm of all gradients together before clipping.
    pub grad_norm: f64,
    /// The same of backbone and heads, by their names.
    pub grad_norms: Vec<(String, f64)>,
    /// Length of the update of some matrices over their own length, on average; if it was asked for.
    pub update_ratio: Option<Tensor>,
    /// Coding-rate factorizations that had to be repeated with jitter or in fp64.
    pub rate_retries: u64,
}

/// How a step ended.
pub enum StepResult {
    /// Student and teacher have moved.
    Done(StepOutput),
    /// Nothing has moved.
    Skipped(Skipped),
}

/// Why a step was skipped.
#[derive(Debug, Clone, PartialEq)]
pub struct Skipped {
    /// What was not finite, as a clause.
    pub what: String,
    /// Whether only the factor of half precision was too large, which happens and mends itself.
    pub scaling: bool,
    /// Images of the step in this process, by their index in the data set.
    pub samples: Vec<u64>,
}

/// Adds up the micro-batches of a step.
#[derive(Default)]
pub struct StepAccumulator(Option<StepOutput>);

impl StepAccumulator {
    /// Adds the share of one micro-batch.
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
                grad_norm: f64::NAN, // of the step, once all its gradients are there
                grad_norms: Vec::new(),
                update_ratio: None,
                rate_retries: 0,
            }),
        };
        step.numbers.clone_from(&output.numbers);
        step.signals = signals;
        step.rate_retries += u64::from(output.events.jitter + output.events.fp64);
    }

    /// The step, once its update is done.
    pub fn finish(self, norms: GradNorms, update_ratio: Option<Tensor>) -> Option<StepOutput> {
        let GradNorms { all: grad_norm, by_module: grad_norms, .. } = norms;
        self.0.map(|step| StepOutput { grad_norm, grad_norms, update_ratio, ..step })
    }
}

impl StepOutput {
    /// Replaces loss and terms, which are those of this process, by their means over all of them.
    ///
    /// # Errors
    /// A process does not answer.
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
