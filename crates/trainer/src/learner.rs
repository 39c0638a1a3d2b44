//! Student, teacher and one optimizer step. The loop around it is in [`crate::run`].

mod config;

use model::weights::{ImportPolicy, ImportReport, Target, TensorFile, import};
use objectives::health::Signals;
use objectives::{Inputs, LossOutput, Needs, Objective, Outputs, Statistics, StepContext};
use tch::{Device, Kind, Tensor};

pub use self::config::LearnerConfig;
use crate::branch::Branch;
use crate::clip::Clip;
use crate::config::Precision;
use crate::error::{Error, Result};
use crate::grad_scaler::GradScaler;
use crate::input::Views;
use crate::optim::Optimizer;
use crate::processes::{Gradients, Processes};
use crate::schedule::StepValues;
use crate::step::{Skipped, StepAccumulator, StepRequest, StepResult};
use crate::{ema, forward};

/// Student, teacher, optimizer and objective.
pub struct Learner {
    /// The network that is trained.
    pub student: Branch,
    /// Its moving average, which is what people take away.
    pub teacher: Branch,
    /// The optimizer and its state.
    pub optimizer: Optimizer,
    objective: Box<dyn Objective>,
    loss_scale: Option<GradScaler>,
    clip: Clip,
    config: LearnerConfig,
    trainable: Vec<Tensor>,
    /// Matrices whose updates are measured.
    watched: Vec<Tensor>,
    gradients: Gradients,
    processes: Processes,
}

impl Learner {
    /// Student with fresh weights drawn from the seed; the teacher starts as its copy.
    ///
    /// # Errors
    /// Wrong values in the config; another network in another process.
    pub fn new(config: LearnerConfig, processes: Processes) -> Result<Self> {
        torch_ext::manual_seed(config.seed);
        let objective = config.objective.build()?;
        let student = Branch::new(&config)?;
        let mut teacher = Branch::new(&config)?;
        teacher.vars.copy(&student.vars)?;
        teacher.vars.freeze();
        let named = trainable(&student, objective.needs());
        let names = named.iter().map(|(name, _)| name.as_str());
        let depth = student.network.backbone.depth();
        Ok(Self {
            clip: Clip::new(names, config.device, config.optim.clip_scope, config.optim.clip_grad)?,
            optimizer: Optimizer::new(&named, depth, &config.optim),
            loss_scale: (config.precision == Precision::Fp16).then(GradScaler::default),
            watched: watched(&named, depth),
            gradients: Gradients::new(&processes, &named)?,
            trainable: named.into_iter().map(|(_, p)| p).collect(),
            objective,
            student,
            teacher,
            config,
            processes,
        })
    }

    /// Puts weights of a file, of whatever program, in the place of fresh ones, in student and teacher;
    /// with `head` those of its head too. Call it before the first step.
    ///
    /// # Errors
    /// A file that holds no network, or too little of this one.
    pub fn start_from(
        &mut self,
        file: &TensorFile,
        policy: &ImportPolicy,
        head: bool,
    ) -> Result<ImportReport> {
        let target = Target {
            vars: &self.student.vars,
            model: &self.config.model,
            backbone: "backbone.",
            head: head.then_some("head."),
            patch_head: (head && self.config.head.separate_patch_head).then_some("patch_head."),
        };
        let report = import(file, &target, policy)?;
        self.share_weights()?;
        Ok(report)
    }

    /// Makes the student of every process that of the first, and the teacher a copy of it.
    ///
    /// # Errors
    /// A process does not answer.
    pub fn share_weights(&mut self) -> Result<()> {
        let weights: Vec<Tensor> = self.student.named().into_iter().map(|(_, w)| w).collect();
        self.processes.collective().broadcast_all(&weights, 0)?;
        Ok(self.teacher.vars.copy(&self.student.vars)?)
    }

    /// What the learner was made from.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Trainable parameters of the student, counted.
    pub fn num_parameters(&self) -> usize {
        self.trainable.iter().map(Tensor::numel).sum()
    }

    /// Whether all weights of the student are numbers. Waits for the device.
    ///
    /// # Errors
    /// A libtorch operation fails.
    pub fn is_finite(&self) -> Result<bool> {
        let norms = Tensor::stack(&torch_ext::foreach_norm(&self.trainable)?, 0);
        Ok(norms.isfinite().all().double_value(&[]) != 0.0)
    }

    /// What the objective looks at.
    pub fn needs(&self) -> Needs {
        self.objective.needs()
    }

    /// What is remembered from step to step besides weights and optimizer, by name.
    pub fn objective_state(&self) -> Vec<(String, Tensor)> {
        let scale = self.loss_scale.as_ref().map(GradScaler::state);
        self.objective.state().into_iter().chain(scale).collect()
    }

    /// Puts back what [`Self::objective_state`] gave.
    ///
    /// # Errors
    /// State of another objective.
    pub fn load_objective_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let others = match &mut self.loss_scale {
            Some(scale) => scale.load(state),
            None => state.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(),
        };
        Ok(self.objective.load_state(&moved(others, self.config.device)?)?)
    }

    /// One optimizer step over `accumulate` micro-batches that `next_views` supplies: forward,
    /// backward, clip, update, moving average. Where a loss or gradient is not finite, in whatever
    /// process, the step changes nothing in any.
    ///
    /// # Errors
    /// No data, features that the objective refuses, a process that does not answer.
    pub fn step(
        &mut self,
        request: &StepRequest,
        mut next_views: impl FnMut() -> Result<Views>,
    ) -> Result<StepResult> {
        self.gradients.clear()?;
        let (mut sum, mut statistics) = (StepAccumulator::default(), Statistics::default());
        let (mut lost, mut samples) = (None, Vec::new());
        for micro_batch in 1..=self.config.accumulate {
            let views = next_views()?;
            samples.extend_from_slice(&views.samples);
            if lost.is_some() {
                continue; // what is left of the step is taken in and passed over
            }
            let last = micro_batch == self.config.accumulate;
            match self.micro_batch(&views, request, last)? {
                Ok((mut output, signals)) => {
                    statistics += std::mem::take(&mut output.statistics);
                    sum.add(&output, signals, 1.0 / self.config.accumulate as f64);
                }
                Err(what) => lost = Some(what),
            }
        }
        if let Some(what) = lost {
            return Ok(StepResult::Skipped(Skipped { what, scaling: false, samples }));
        }
        self.finish(request, sum, &statistics, samples)
    }

    /// Adds the gradients of one micro-batch, or tells whose features are not finite. Every process
    /// answers the same.
    fn micro_batch(
        &self,
        views: &Views,
        request: &StepRequest,
        last: bool,
    ) -> Result<std::result::Result<(LossOutput, Option<Signals>), String>> {
        // Each micro-batch and process starts from the same seed: draws are made for the whole batch.
        torch_ext::manual_seed(request.seed);
        self.gradients.prepare(last)?;
        let (student, teacher) = self.forward(views)?;
        if let Some(what) = self.not_finite(&student, &teacher)? {
            return Ok(Err(what));
        }
        let inputs = Inputs {
            student: &student,
            teacher: &teacher,
            masked: views.masks.as_ref().map(|masks| &masks.masked),
            context: context(&request.values, self.config.batch_size),
            collective: self.processes.collective(),
        };
        let output = self.objective.evaluate(&inputs)?;
        let look = request.log_metrics && last;
        let signals = look.then(|| Signals::measure(&inputs, &output)).transpose()?;
        let scale = self.loss_scale.as_ref().map_or(1.0, GradScaler::factor);
        let share = scale / self.config.accumulate as f64;
        self.gradients.backward(&(&output.loss * share), last)?;
        Ok(Ok((output, signals)))
    }

    fn forward(&self, views: &Views) -> Result<(Outputs, Outputs)> {
        let dtype = self.config.precision.autocast();
        let needs = self.objective.needs();
        torch_ext::autocast(self.config.device, dtype, || {
            let teacher = forward::teacher(&self.teacher.network, views, needs)?;
            Ok((forward::student(&self.student.network, views, needs)?, teacher))
        })?
    }

    /// Whose outputs are not finite, in any of the processes.
    fn not_finite(&self, student: &Outputs, teacher: &Outputs) -> Result<Option<String>> {
        let bad = |outputs: &Outputs| -> Result<Tensor> {
            let all = outputs.patches.iter().chain([&outputs.cls]);
            let largest = all.map(largest).collect::<Result<Vec<Tensor>>>()?;
            Ok(Tensor::stack(&largest, 0).isfinite().logical_not().any())
        };
        let both = Tensor::stack(&[bad(student)?, bad(teacher)?], 0).to_kind(Kind::Float);
        let mut both = both.to_device(Device::Cpu); // sync
        self.processes.collective().all_reduce_max(&mut both)?;
        let [student, teacher] = [0, 1].map(|i| both.double_value(&[i]) != 0.0);
        let whose = if student { "student" } else { "teacher" };
        Ok((student || teacher).then(|| format!("the {whose}'s features are not finite")))
    }

    /// Clips, updates the student, moves the teacher: if all gradients are finite.
    fn finish(
        &mut self,
        request: &StepRequest,
        sum: StepAccumulator,
        statistics: &Statistics,
        samples: Vec<u64>,
    ) -> Result<StepResult> {
        if let Some(scale) = &self.loss_scale {
            scale.unscale(&self.trainable)?;
        }
        let norms = self.clip.apply(&self.trainable)?;
        let finite = norms.all.double_value(&[]).is_finite(); // sync
        let scaling = self.loss_scale.as_mut().is_some_and(|scale| scale.update(finite) && !finite);
        if !finite {
            let what = "the gradient is not finite".to_owned();
            return Ok(StepResult::Skipped(Skipped { what, scaling, samples }));
        }
        let before = request.log_metrics.then(|| copies(&self.watched));
        self.optimizer.step(&request.values)?;
        let update_ratio = before.map(|before| update_ratio(&before, &self.watched));
        ema::update(&self.teacher, &self.student, request.values.momentum_teacher)?;
        self.objective.update(statistics, self.processes.collective())?;
        let output = sum.finish(norms, update_ratio);
        output
            .map(StepResult::Done)
            .ok_or_else(|| Error::Settings("train.accumulate: must be at least 1 (got 0)".into()))
    }
}

/// State on the device that everything else is on: a checkpoint is read to the CPU.
fn moved(state: Vec<(String, Tensor)>, device: Device) -> Result<Vec<(String, Tensor)>> {
    state.into_iter().map(|(name, value)| Ok((name, value.f_to_device(device)?))).collect()
}

/// The largest size of a value, 0 of none; not finite where one value is not. One pass that keeps
/// nothing, where a sum in fp64 would first make a copy in fp64.
fn largest(x: &Tensor) -> Result<Tensor> {
    if x.numel() == 0 {
        return Ok(Tensor::f_zeros([], (Kind::Double, x.device()))?);
    }
    let (low, high) = x.detach().f_aminmax(None, false)?;
    Ok(low.f_abs()?.f_maximum(&high.f_abs()?)?.f_to_kind(Kind::Double)?)
}

/// Parameters of the student that the objective reaches, by name.
fn trainable(student: &Branch, needs: Needs) -> Vec<(String, Tensor)> {
    // Without masked patches the mask token takes no part, and would have no gradient.
    let reached = |name: &str| needs.patches || name != "backbone.mask_token";
    let named = student.named().into_iter();
    named.filter(|(name, p)| p.requires_grad() && reached(name)).collect()
}

/// The attention of the first, the middle and the last block: enough to see how fast weights move,
/// and little to copy.
fn watched(named: &[(String, Tensor)], depth: i64) -> Vec<Tensor> {
    let blocks = [0, depth / 2, depth - 1];
    let names = blocks.map(|block| format!("backbone.blocks.{block}.attn.qkv.weight"));
    let found = named.iter().filter(|(name, _)| names.contains(name));
    found.map(|(_, matrix)| matrix.shallow_clone()).collect()
}

fn copies(tensors: &[Tensor]) -> Vec<Tensor> {
    tensors.iter().map(|tensor| tensor.detach().copy()).collect()
}

/// Mean of `|after - before| / |before|`; 0-dimensional.
fn update_ratio(before: &[Tensor], after: &[Tensor]) -> Tensor {
    let ratio = |(before, after): (&Tensor, &Tensor)| {
        (after.detach() - before).norm() / before.norm().clamp_min(f64::MIN_POSITIVE)
    };
    let ratios: Vec<Tensor> = before.iter().zip(after).map(ratio).collect();
    Tensor::stack(&ratios, 0).mean(None)
}

fn context(values: &StepValues, global_batch: usize) -> StepContext {
    StepContext {
        step: values.step,
        steps_per_epoch: values.steps_per_epoch,
        progress: values.progress,
        global_batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_that_is_not_finite_is_seen_among_many_and_large_ones_are_fine() {
        for kind in [Kind::Float, Kind::Double, Kind::BFloat16, Kind::Half] {
            // All of one sign and as large as can be: a sum of them would be infinite.
            let most = match kind {
                Kind::Half => 65_504.0,
                Kind::Double => 1e308,
                _ => 3.3e38,
            };
            let fine = Tensor::full([70, 333], most, (kind, Device::Cpu));
            let finite = |x: &Tensor| largest(x).unwrap().double_value(&[]).is_finite();
            assert!(finite(&fine), "{kind:?}");
            for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                for place in [0, 1, 4097, 70 * 333 - 1] {
                    let x = fine.copy();
                    let _ = x.view([-1]).get(place).fill_(wrong);
                    assert!(!finite(&x), "{kind:?}: {wrong} at {place}");
                }
            }
        }
        let none = Tensor::zeros([0, 5], (Kind::Float, Device::Cpu));
        assert_eq!(largest(&none).unwrap().double_value(&[]), 0.0);
    }

    #[test]
    fn state_goes_to_the_device_of_the_learner_or_the_error_says_why_not() {
        let state = || vec![("center".to_owned(), Tensor::from_slice(&[1.0f32, 2.0]))];
        let here = moved(state(), Device::Cpu).unwrap();
        assert_eq!(here[0].1, Tensor::from_slice(&[1.0f32, 2.0]));
        assert!(moved(state(), Device::Cuda(1000)).is_err());
    }
}
