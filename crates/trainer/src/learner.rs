//! Student, teacher, and one optimizer step. [`crate::run`] contains the training loop.

mod config;
mod finite;
mod gathered;
mod parameters;
#[cfg(test)]
mod tests;

use model::weights::{ImportPolicy, ImportReport, Target, TensorFile, import};
use objectives::{Deferred, Inputs, LossOutput, Needs, Objective, Outputs, StepContext};
use tch::Tensor;

pub use self::config::LearnerConfig;
use self::finite::{read, sizes};
use self::gathered::Gathered;
use self::parameters::{
    copies, moved, restore, running_statistics, tracked, trainable, update_ratio,
};
use crate::branch::Branch;
use crate::clip::Clip;
use crate::config::Precision;
use crate::ema::MovingAverage;
use crate::error::{Error, Result};
use crate::forward::{self, Seen};
use crate::grad_scaler::GradScaler;
use crate::input::Views;
use crate::optim::Optimizer;
use crate::processes::{Gradients, Processes};
use crate::recorder::Recorder;
use crate::step::{Skipped, StepRequest, StepResult};

/// Student, teacher, optimizer, and objective.
pub struct Learner {
    /// The network that is trained.
    pub student: Branch,
    /// The moving average of the student, which is the result of a run.
    pub teacher: Branch,
    /// The optimizer and its state.
    pub optimizer: Optimizer,
    objective: Box<dyn Objective>,
    loss_scale: Option<GradScaler>,
    clip: Clip,
    average: MovingAverage,
    config: LearnerConfig,
    trainable: Vec<Tensor>,
    /// Matrices whose updates are measured.
    tracked: Vec<Tensor>,
    /// Those of batch norm in the heads of both networks; every forward pass changes them.
    running_statistics: Vec<Tensor>,
    gradients: Gradients,
    recorder: Recorder,
    processes: Processes,
}

impl Learner {
    /// Creates a student with new weights drawn from the seed; the teacher starts as a copy of it.
    ///
    /// `objective` is one of ours, from `ObjectiveConfig::build`, or your own. The networks must
    /// have the outputs that it [`needs`](Objective::needs): prototypes in `config.head` if and
    /// only if it compares their scores, and a mask token in `config.model` if it compares patches.
    ///
    /// # Errors
    /// Returns an error if the config is invalid or was made for another process, if the networks
    /// lack an output that the objective needs, or if another process has a different network.
    pub fn new(
        config: LearnerConfig,
        objective: Box<dyn Objective>,
        processes: Processes,
    ) -> Result<Self> {
        let (planned, is) = (config.geometry, (processes.rank(), processes.size()));
        if (planned.rank(), planned.world_size()) != is {
            return Err(Error::Settings(format!(
                "the batch was divided for process {} of {}, but this is process {} of {}",
                planned.rank(),
                planned.world_size(),
                is.0,
                is.1
            )));
        }
        config.provides(objective.needs())?;
        torch_ext::manual_seed(config.seed);
        let student = Branch::new(&config)?;
        let mut teacher = Branch::new(&config)?;
        teacher.vars.copy(&student.vars)?;
        teacher.vars.freeze();
        let named = trainable(&student, objective.needs());
        let names = named.iter().map(|(name, _)| name.as_str());
        let depth = student.network.backbone.depth();
        Ok(Self {
            clip: Clip::new(names, config.optim.clip_scope, config.optim.clip_grad),
            average: MovingAverage::new(&teacher, &student),
            optimizer: Optimizer::new(&named, depth, &config.optim),
            loss_scale: (config.precision == Precision::Fp16).then(GradScaler::default),
            tracked: tracked(&named, depth),
            running_statistics: running_statistics([&student, &teacher]),
            gradients: Gradients::new(&processes, &named)?,
            recorder: Recorder::new(
                config.records_graphs() && matches!(processes, Processes::Single),
            ),
            trainable: named.into_iter().map(|(_, p)| p).collect(),
            objective,
            student,
            teacher,
            config,
            processes,
        })
    }

    /// Replaces the new weights of student and teacher with those of a weight file in any supported
    /// format; with `head`, also those of the head. Call it before the first step.
    ///
    /// # Errors
    /// Returns an error if the file contains no network or too little of this one.
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

    /// Copies the student of the first process to every process, and then to the teacher.
    ///
    /// # Errors
    /// Returns an error if a process does not respond.
    pub fn share_weights(&mut self) -> Result<()> {
        let weights: Vec<Tensor> = self.student.named().into_iter().map(|(_, w)| w).collect();
        self.processes.collective().broadcast_all(&weights, 0)?;
        Ok(self.teacher.vars.copy(&self.student.vars)?)
    }

    /// Returns the configuration of the learner.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Returns the number of trainable parameters of the student.
    pub fn num_parameters(&self) -> usize {
        self.trainable.iter().map(Tensor::numel).sum()
    }

    /// Returns the size of each gradient in bytes, in the order of the parameters.
    pub fn parameter_bytes(&self) -> Vec<usize> {
        self.trainable.iter().map(|p| p.numel() * p.kind().elt_size_in_bytes()).collect()
    }

    /// Returns whether all trainable weights of the student are finite. Waits for the device.
    ///
    /// # Errors
    /// Returns an error if a libtorch operation fails.
    pub fn is_finite(&self) -> Result<bool> {
        let norms = Tensor::stack(&torch_ext::foreach_norm(&self.trainable)?, 0);
        Ok(norms.isfinite().all().double_value(&[]) != 0.0)
    }

    /// Returns the outputs that the objective needs.
    pub fn needs(&self) -> Needs {
        self.objective.needs()
    }

    /// Returns all state, by name, that persists from step to step besides weights and optimizer.
    pub fn objective_state(&self) -> Vec<(String, Tensor)> {
        let scale = self.loss_scale.as_ref().map(GradScaler::state);
        self.objective.state().into_iter().chain(scale).collect()
    }

    /// Restores the result of [`Self::objective_state`].
    ///
    /// # Errors
    /// Returns an error if the state belongs to another objective.
    pub fn load_objective_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        let others = match &mut self.loss_scale {
            Some(scale) => scale.load(state),
            None => state.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect(),
        };
        Ok(self.objective.load_state(&moved(others, self.config.device)?)?)
    }

    /// Runs one optimizer step over `accumulate` micro-batches supplied by `next_views`: forward,
    /// backward, clip, update, moving average. If a loss or gradient is not finite in any process,
    /// the step changes nothing in any process.
    ///
    /// A step with one micro-batch waits for the device once, before anything changes. Only if a
    /// value is not finite is the step repeated with a check after each part, which costs a second
    /// pass and finds the cause. Steps with several micro-batches are always checked this way,
    /// because repeating them would require keeping all of their images; so are steps of networks
    /// with batch norm, whose running statistics change in each pass.
    ///
    /// # Errors
    /// Returns an error if there is no data, the objective rejects features, or a process does not
    /// respond.
    pub fn step(
        &mut self,
        request: &StepRequest,
        mut next_views: impl FnMut() -> Result<Views>,
    ) -> Result<StepResult> {
        self.gradients.clear()?;
        if self.config.geometry.accumulate() > 1 || self.config.head.use_bn {
            let before = copies(&self.running_statistics);
            let result = self.step_checked_on_the_way(request, next_views);
            if !matches!(result, Ok(StepResult::Done(_))) {
                restore(&self.running_statistics, &before);
            }
            return result;
        }
        let views = next_views()?;
        if let Some(result) = self.step_checked_at_end(request, &views)? {
            return Ok(result);
        }
        self.gradients.clear()?;
        let mut again = Some(views);
        self.step_checked_on_the_way(request, || again.take().map_or_else(&mut next_views, Ok))
    }

    /// Runs a step with one micro-batch that launches everything before it checks. If features or
    /// loss are not finite, or a coding rate must be retried, in any process, changes nothing but
    /// gradients and returns `None`.
    fn step_checked_at_end(
        &mut self,
        request: &StepRequest,
        views: &Views,
    ) -> Result<Option<StepResult>> {
        let (student, teacher) = self.features(views, request, true)?;
        let deferred = Deferred::default();
        deferred.note(&sizes(&student)?);
        deferred.note(&sizes(&teacher)?);
        let inputs =
            Inputs { deferred: Some(&deferred), ..self.inputs(views, request, &student, &teacher) };
        let output = self.evaluate(&inputs, true)?;
        let grads = self.grads()?;
        let (numbers, norms) = read(deferred.into_numbers(), &grads)?; // sync
        if self.processes.any(numbers.iter().any(|number| !number.is_finite()))? {
            return Ok(None);
        }
        let mut step = Gathered { samples: views.samples.clone(), ..Gathered::default() };
        step.add(output, &teacher, request.log_metrics, 1.0)?;
        self.finish(request, step, &grads, norms).map(Some)
    }

    /// Runs a step that checks the features of each micro-batch before it continues.
    fn step_checked_on_the_way(
        &mut self,
        request: &StepRequest,
        mut next_views: impl FnMut() -> Result<Views>,
    ) -> Result<StepResult> {
        let (mut lost, mut step) = (None, Gathered::default());
        let share = 1.0 / self.config.geometry.accumulate() as f64;
        for micro_batch in 1..=self.config.geometry.accumulate() {
            let views = next_views()?;
            step.samples.extend_from_slice(&views.samples);
            if lost.is_some() {
                continue; // the loader must still deliver the rest of the step
            }
            let last = micro_batch == self.config.geometry.accumulate();
            let (student, teacher) = self.features(&views, request, last)?;
            lost = self.not_finite(&student, &teacher)?;
            if lost.is_none() {
                let output =
                    self.evaluate(&self.inputs(&views, request, &student, &teacher), last)?;
                step.add(output, &teacher, request.log_metrics && last, share)?;
            }
        }
        if let Some(what) = lost {
            let samples = step.samples;
            return Ok(StepResult::Skipped(Skipped { what, scaling: false, samples }));
        }
        let grads = self.grads()?;
        let (_, norms) = read(Vec::new(), &grads)?; // sync
        self.finish(request, step, &grads, norms)
    }

    /// Takes the reason why the step could not be recorded as a CUDA graph, once.
    pub fn take_graph_problem(&mut self) -> Option<String> {
        self.recorder.take_problem()
    }

    /// Computes the student's and teacher's outputs for a micro-batch.
    fn features(
        &mut self,
        views: &Views,
        request: &StepRequest,
        last: bool,
    ) -> Result<(Outputs, Outputs)> {
        // Every micro-batch and process starts from the same seed and draws for the whole batch, so
        // that the draws of an image do not depend on how the batch is divided.
        torch_ext::manual_seed(request.seed);
        self.gradients.prepare(last)?;
        let needs = self.objective.needs();
        let (student, teacher) = (&self.student, &self.teacher);
        self.config.precision.forward(self.config.device, || {
            let features = self.recorder.features(student, teacher, &Seen::of(views))?;
            let [of_student, of_teacher] = &features;
            let teacher = tch::no_grad(|| {
                let backbone = needs.backbone || needs.prototypes;
                forward::heads(&teacher.network, of_teacher, views, backbone)
            })?;
            Ok((forward::heads(&student.network, of_student, views, needs.backbone)?, teacher))
        })?
    }

    fn inputs<'a>(
        &'a self,
        views: &'a Views,
        request: &StepRequest,
        student: &'a Outputs,
        teacher: &'a Outputs,
    ) -> Inputs<'a> {
        let values = &request.values;
        Inputs {
            student,
            teacher,
            masked: views.masks.as_ref().map(|masks| &masks.masked),
            context: StepContext {
                step: values.step,
                steps_per_epoch: values.steps_per_epoch,
                progress: values.progress,
                batch_size: self.config.geometry.batch_size(),
            },
            collective: self.processes.collective(),
            deferred: None,
        }
    }

    /// Computes the loss of a micro-batch and accumulates its gradients.
    fn evaluate(&self, inputs: &Inputs, last: bool) -> Result<LossOutput> {
        let output = self.objective.evaluate(inputs)?;
        let scale = self.loss_scale.as_ref().map_or(1.0, GradScaler::factor);
        let share = scale / self.config.geometry.accumulate() as f64;
        let loss = &output.loss * share;
        self.config.precision.products(|| self.gradients.backward(&loss, last))??;
        Ok(output)
    }

    /// Describes whose outputs are not finite in any process; `None` if all are finite.
    fn not_finite(&self, student: &Outputs, teacher: &Outputs) -> Result<Option<String>> {
        let student = sizes(student)?;
        let (all, _) = read(vec![student.shallow_clone(), sizes(teacher)?], &[])?; // sync
        let (student, teacher) = all.split_at(student.numel());
        let bad = |sizes: &[f64]| f32::from(sizes.iter().any(|size| !size.is_finite()));
        let mut bad = Tensor::from_slice(&[bad(student), bad(teacher)]);
        self.processes.collective().all_reduce_max(&mut bad)?;
        let [student, teacher] = [0, 1].map(|i| bad.double_value(&[i]) != 0.0);
        let whose = if student { "student" } else { "teacher" };
        Ok((student || teacher).then(|| format!("the {whose}'s features are not finite")))
    }

    /// Returns the gradients of the step, without the half-precision scale factor.
    fn grads(&self) -> Result<Vec<Tensor>> {
        let grads: Vec<Tensor> = self.trainable.iter().map(Tensor::grad).collect();
        if let Some(scale) = &self.loss_scale {
            scale.unscale(&grads)?;
        }
        Ok(grads)
    }

    /// Clips the gradients, and updates the student and then the teacher, if all gradients are
    /// finite; otherwise, skips the step.
    fn finish(
        &mut self,
        request: &StepRequest,
        step: Gathered,
        grads: &[Tensor],
        norms: Vec<f64>,
    ) -> Result<StepResult> {
        let kind = self.config.precision.weights();
        let norms = self.clip.norms(norms, kind);
        if !norms.all.is_finite() {
            let scaling = self.loss_scale.as_mut().is_some_and(GradScaler::back_off);
            let (what, samples) = ("the gradient is not finite".to_owned(), step.samples);
            return Ok(StepResult::Skipped(Skipped { what, scaling, samples }));
        }
        if let Some(scale) = &mut self.loss_scale {
            scale.count_step();
        }
        // This comes first: what it may read from the device is already available, whereas the
        // operations below would have to complete first.
        self.objective.update(&step.statistics, self.processes.collective())?;
        self.clip.apply(grads, &norms)?;
        let before = request.log_metrics.then(|| copies(&self.tracked));
        self.optimizer.step(&request.values)?;
        let update_ratio = before.map(|before| update_ratio(&before, &self.tracked));
        self.average.update(request.values.momentum_teacher)?;
        let output = step.sum.finish(norms, update_ratio);
        output
            .map(StepResult::Done)
            .ok_or_else(|| Error::Settings("train.accumulate: must be at least 1 (got 0)".into()))
    }
}
