//! The parts that DINO, DINOv2, and iBOT share: targets from the teacher's scores of `K`
//! prototypes, protected from collapse, and the cross-entropy with the student's scores.

use tch::Tensor;
use torch_ext::Collective;

use crate::Result;
use crate::config::{Centering, WarmupForm};
use crate::inputs::StepContext;
use crate::objective::Statistics;
use crate::sinkhorn::sinkhorn_knopp;
use crate::views::{mean_over_pairs, pair_products};

/// The teacher's temperature: it warms up linearly and is then constant.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TeacherTemperature {
    /// Temperature at the first step.
    pub start: f64,
    /// Temperature after the warm-up.
    pub end: f64,
    /// Length of the warm-up in epochs.
    pub warmup_epochs: f64,
    /// Whether the last step (or epoch) of the warm-up already has the final value.
    pub warmup_form: WarmupForm,
    /// Whether it changes at each step, as in DINOv2, rather than at each epoch, as in DINO.
    pub every_step: bool,
}

impl TeacherTemperature {
    /// Returns the temperature at a step.
    pub(crate) fn at(&self, context: StepContext) -> f64 {
        let per_epoch = context.steps_per_epoch.max(1);
        let (now, length) = if self.every_step {
            (context.step, (self.warmup_epochs * per_epoch as f64).round())
        } else {
            (context.step / per_epoch, self.warmup_epochs.round())
        };
        let length = length as u64;
        if now >= length {
            return self.end;
        }
        let passed = now as f64 / self.warmup_form.span(length) as f64;
        self.start + (self.end - self.start) * passed
    }
}

/// The moving average of the teacher's scores. It is subtracted from them so that no prototype
/// dominates.
///
/// ```text
/// center <- momentum * center + (1 - momentum) * mean of the teacher's rows of all processes
/// ```
///
/// It is updated after the step: the targets of a step use the center of the steps before it.
#[derive(Debug)]
pub(crate) struct Center {
    name: &'static str,
    momentum: f64,
    /// `[1, K]`; `None` before the first update, when it stands for 0.
    value: Option<Tensor>,
}

impl Center {
    /// Creates a center at 0. Its statistics and its state are stored under `name`.
    pub(crate) fn new(name: &'static str, momentum: f64) -> Self {
        Self { name, momentum, value: None }
    }

    /// Returns the softmax of the centered scores, `[.., K]`.
    fn targets(&self, scores: &Tensor, temperature: f64) -> Result<Tensor> {
        let centered = match &self.value {
            Some(center) => scores.f_sub(&center.f_type_as(scores)?)?,
            None => scores.shallow_clone(),
        };
        Ok((centered / temperature).softmax(-1, scores.kind()))
    }

    /// Records what [`Self::update`] needs from scores `[.., K]`: their sum and their number, `[K
    /// + 1]`.
    fn record(&self, scores: &Tensor, statistics: &mut Statistics) {
        let width = scores.size()[scores.dim() - 1];
        let rows = scores.reshape([-1, width]);
        let count = Tensor::full([1], rows.size()[0], (rows.kind(), rows.device()));
        let sum = rows.sum_dim_intlist(0, false, rows.kind()); // [K]
        statistics.put(self.name, Tensor::cat(&[sum, count], 0));
    }

    fn update(&mut self, statistics: &Statistics, collective: &dyn Collective) -> Result<()> {
        let Some(recorded) = statistics.get(self.name) else { return Ok(()) };
        let mut recorded = recorded.copy();
        collective.all_reduce_sum(&mut recorded)?;
        let width = recorded.size()[0] - 1;
        let count = recorded.narrow(0, width, 1);
        // Without rows (no patch was masked), the mean is 0 / 1 and the weight is 0, so nothing
        // changes.
        let mean = recorded.narrow(0, 0, width) / count.clamp_min(1.0); // [K]
        let weight = count.clamp_max(1.0) * (1.0 - self.momentum);
        let mean = mean.unsqueeze(0);
        // A loaded center may be on another device than the features, or have another type.
        let before = match &self.value {
            Some(value) => value.f_type_as(&mean)?,
            None => mean.f_zeros_like()?,
        };
        self.value = Some(before.f_add(&mean.f_sub(&before)?.f_mul(&weight)?)?);
        Ok(())
    }

    fn load(&mut self, tensors: &[(String, Tensor)]) {
        let found = tensors.iter().find(|(name, _)| name == self.name);
        self.value = found.map(|(_, tensor)| tensor.copy());
    }
}

/// How targets are protected from collapse.
#[derive(Debug)]
pub(crate) enum TeacherTargets {
    /// Subtracts a moving average.
    Centered(Center),
    /// Applies Sinkhorn-Knopp over the batch; stateless.
    Sinkhorn,
}

impl TeacherTargets {
    /// Creates the initial state. `name` is the name of its center, if it has one.
    pub(crate) fn new(centering: Centering, name: &'static str, momentum: f64) -> Self {
        match centering {
            Centering::Softmax => Self::Centered(Center::new(name, momentum)),
            Centering::SinkhornKnopp => Self::Sinkhorn,
        }
    }

    /// Returns the probabilities of the prototypes, `[.., K]`, and records what [`Self::update`]
    /// will need.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub(crate) fn targets(
        &self,
        scores: &Tensor,
        temperature: f64,
        collective: &dyn Collective,
        statistics: &mut Statistics,
    ) -> Result<Tensor> {
        let scores = scores.detach();
        match self {
            Self::Centered(center) => {
                center.record(&scores, statistics);
                center.targets(&scores, temperature)
            }
            Self::Sinkhorn => {
                let width = scores.size()[scores.dim() - 1];
                let rows = scores.reshape([-1, width]);
                Ok(sinkhorn_knopp(&rows, temperature, collective)?.reshape_as(&scores))
            }
        }
    }

    /// Updates the center, once it is certain that the step was not skipped.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub(crate) fn update(
        &mut self,
        statistics: &Statistics,
        collective: &dyn Collective,
    ) -> Result<()> {
        match self {
            Self::Centered(center) => center.update(statistics, collective),
            Self::Sinkhorn => Ok(()),
        }
    }

    /// Returns the center, if it has been updated.
    pub(crate) fn state(&self) -> Option<(String, Tensor)> {
        match self {
            Self::Centered(Center { name, value: Some(value), .. }) => {
                Some(((*name).to_owned(), value.shallow_clone()))
            }
            _ => None,
        }
    }

    /// Restores the result of [`Self::state`].
    pub(crate) fn load(&mut self, tensors: &[(String, Tensor)]) {
        if let Self::Centered(center) = self {
            center.load(tensors);
        }
    }
}

/// Divides scores by the student's temperature and shifts them so that the maximum of each row is
/// 0; also returns the logarithm of the sum of their exponentials. `[.., K] -> [.., K], [..]`
fn stable_logits(scores: &Tensor, temperature: f64) -> (Tensor, Tensor) {
    let logits = scores / temperature;
    // Shifting a row changes nothing, because targets sum to 1, and it preserves precision.
    let logits = &logits - logits.detach().amax([-1].as_slice(), true);
    let log_sum = logits.logsumexp(-1, false);
    (logits, log_sum)
}

/// Computes the mean cross-entropy of each target view with every other student view,
/// `-sum_k q[g][b][k] log_softmax(s[v][b] / temperature)[k]`, without materializing all pairs.
///
/// # Shapes
/// - `targets`: `[2, B, K]`, rows that sum to 1; `student`: `[V, B, K]`; result 0-dimensional
pub(crate) fn cross_entropy_of_views(
    targets: &Tensor,
    student: &Tensor,
    temperature: f64,
) -> Tensor {
    let (logits, log_sum) = stable_logits(student, temperature); // [V, B, K], [V, B]
    let pairs = log_sum.unsqueeze(0) - pair_products(targets, &logits); // [2, V, B]
    mean_over_pairs(&pairs)
}

/// Computes the similarity of patches, `sum_k t[j][k] log_softmax(s[j] / temperature)[k]`:
/// `[m, K] -> [m]`
pub(crate) fn log_likelihood(targets: &Tensor, student: &Tensor, temperature: f64) -> Tensor {
    let (logits, log_sum) = stable_logits(student, temperature); // [m, K], [m]
    (targets * logits).sum_dim_intlist(-1, false, log_sum.kind()) - log_sum
}

/// Returns two entropies of the targets as fractions of the maximum, `[2]`: the mean over rows (1
/// when the targets are uniform), and that of the mean row (0 when all rows choose the same
/// prototype).
pub(crate) fn entropies(targets: &Tensor) -> Tensor {
    let size = targets.size();
    let width = size[size.len() - 1];
    let rows = targets.detach().reshape([-1, width]);
    let most = (width as f64).ln();
    let entropy = |p: &Tensor| {
        -p.xlogy(p).sum_dim_intlist(-1, false, p.kind()) // 0 log 0 = 0
    };
    let own = entropy(&rows).mean(rows.kind());
    let mean_row = rows.mean_dim(0, false, rows.kind());
    // The maximum is ln K for any number of rows, because a single target may be uniform.
    Tensor::stack(&[own, entropy(&mean_row)], 0) / most
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::{TeacherTemperature, entropies};
    use crate::config::WarmupForm;
    use crate::inputs::StepContext;

    #[test]
    fn the_temperature_ends_its_warm_up_with_it_or_after_it() {
        use WarmupForm::{Exclusive, Inclusive};
        let at = |warmup_form, every_step, step| {
            let warmup_epochs = 3.0;
            let t = TeacherTemperature {
                start: 0.04,
                end: 0.07,
                warmup_epochs,
                warmup_form,
                every_step,
            };
            t.at(StepContext { step, steps_per_epoch: 2, ..StepContext::first(8) })
        };
        for (form, every_step, step, expected) in [
            (Inclusive, true, 0, 0.04),
            (Inclusive, true, 4, 0.04 + 0.03 * 4.0 / 5.0),
            (Inclusive, true, 5, 0.07),
            (Exclusive, true, 0, 0.04),
            (Exclusive, true, 5, 0.04 + 0.03 * 5.0 / 6.0),
            (Exclusive, true, 6, 0.07),
            (Inclusive, false, 3, 0.04 + 0.03 / 2.0),
            (Inclusive, false, 4, 0.07),
            (Exclusive, false, 5, 0.04 + 0.03 * 2.0 / 3.0),
            (Exclusive, false, 6, 0.07),
        ] {
            let got = at(form, every_step, step);
            assert!((got - expected).abs() < 1e-12, "{form:?} {every_step} {step}: {got}");
        }
    }

    #[test]
    fn a_teacher_without_opinion_has_the_most_entropy_in_however_small_a_batch() {
        let uniform = tch::Tensor::full([2, 3, 40], 1.0 / 40.0, (Kind::Double, Device::Cpu));
        let shares: Vec<f64> = entropies(&uniform).try_into().unwrap();
        assert!(shares.iter().all(|share| (share - 1.0).abs() < 1e-12), "{shares:?}");
    }
}
