//! Student, teacher and one optimiser step. The loop around it is in [`crate::run`].

use model::normalize::Normalize;
use model::{Mode, Network};
use objectives::health::Signals;
use objectives::{
    Inputs, LossOutput, Objective, ObjectiveConfig, Outputs, Statistics, StepContext,
};
use tch::{Device, Kind, Tensor, nn};
use torch_ext::Alone;

use crate::clip::clip_per_tensor;
use crate::config::{OptimConfig, Precision};
use crate::ema;
use crate::error::{Error, Result};
use crate::input::Views;
use crate::optim::AdamW;
use crate::schedule::StepValues;

/// What a learner is made of.
#[derive(Debug, Clone)]
pub struct LearnerConfig {
    /// Architecture of student and teacher.
    pub model: model::config::ModelConfig,
    /// Their heads.
    pub head: model::config::HeadConfig,
    /// The loss.
    pub objective: ObjectiveConfig,
    /// The optimiser.
    pub optim: OptimConfig,
    /// Precision of the networks.
    pub precision: Precision,
    /// Images in one optimiser step.
    pub batch_size: usize,
    /// Passes a step is split into.
    pub accumulate: usize,
    /// Seed of the initial weights.
    pub seed: u64,
    /// Mean and deviation of the input's channels; they travel with the weights.
    pub normalize: Normalize,
    /// Which values of deeper images become 0 and 255; written into weight files, so that images are
    /// read alike later.
    pub value_range: Vec<[f64; 2]>,
    /// Where everything lives.
    pub device: Device,
}

/// A network and the variables that hold its weights.
pub struct Side {
    /// The variables.
    pub vars: nn::VarStore,
    /// Backbone and head on them.
    pub network: Network,
}

impl Side {
    fn new(config: &LearnerConfig) -> Result<Self> {
        let vars = nn::VarStore::new(config.device);
        let network = Network::new(&vars, &config.model, &config.head)?;
        Ok(Self { vars, network })
    }

    /// All variables by name, in a fixed order, sharing storage with the network.
    pub fn named(&self) -> Vec<(String, Tensor)> {
        model::weights::named_variables(&self.vars)
    }
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
    /// L2 norm of all gradients together before clipping, 0-dim.
    pub grad_norm: Tensor,
    /// Coding-rate factorisations that had to be repeated with jitter or in fp64.
    pub rate_retries: u64,
}

/// Student, teacher, optimiser and objective.
pub struct Learner {
    /// The network that is trained.
    pub student: Side,
    /// Its moving average, which is what people take away.
    pub teacher: Side,
    /// The optimiser and its state.
    pub optimizer: AdamW,
    objective: Box<dyn Objective>,
    config: LearnerConfig,
    trainable: Vec<Tensor>,
}

impl Learner {
    /// Student with fresh weights drawn from the seed; the teacher starts as its copy.
    pub fn new(config: LearnerConfig) -> Result<Self> {
        torch_ext::manual_seed(config.seed);
        let student = Side::new(&config)?;
        let mut teacher = Side::new(&config)?;
        teacher.vars.copy(&student.vars)?;
        teacher.vars.freeze();
        let named: Vec<_> =
            student.named().into_iter().filter(|(_, p)| p.requires_grad()).collect();
        Ok(Self {
            optimizer: AdamW::new(&named, &config.optim),
            objective: config.objective.build()?,
            trainable: named.into_iter().map(|(_, p)| p).collect(),
            student,
            teacher,
            config,
        })
    }

    /// What the learner was made from.
    pub fn config(&self) -> &LearnerConfig {
        &self.config
    }

    /// Trainable parameters of the student, counted.
    pub fn num_parameters(&self) -> usize {
        self.trainable.iter().map(Tensor::numel).sum()
    }

    /// What the objective remembers from step to step, by name.
    pub fn objective_state(&self) -> Vec<(String, Tensor)> {
        self.objective.state()
    }

    /// Puts back what [`Self::objective_state`] gave.
    ///
    /// # Errors
    /// State of another objective.
    pub fn load_objective_state(&mut self, state: &[(String, Tensor)]) -> Result<()> {
        Ok(self.objective.load_state(state)?)
    }

    /// One optimiser step over `accumulate` micro-batches that `next_views` supplies:
    /// forward, backward, clip, update, moving average. With `look` the features' health is
    /// measured too.
    pub fn step(
        &mut self,
        values: &StepValues,
        look: bool,
        mut next_views: impl FnMut() -> Result<Views>,
    ) -> Result<StepOutput> {
        self.trainable.iter_mut().for_each(Tensor::zero_grad);
        let mut total: Option<StepOutput> = None;
        let mut statistics = Statistics::default();
        for micro_batch in 1..=self.config.accumulate {
            let views = next_views()?;
            let look = look && micro_batch == self.config.accumulate;
            let (mut output, signals) = self.forward(&views, values, look)?;
            let share = 1.0 / self.config.accumulate as f64;
            (&output.loss * share).f_backward()?;
            statistics += std::mem::take(&mut output.statistics);
            total = Some(accumulate(total, &output, signals, share));
        }
        let mut total = total.ok_or_else(|| {
            Error::Settings("train.accumulate: must be at least 1 (got 0)".into())
        })?;
        total.grad_norm = clip_per_tensor(&self.trainable, self.config.optim.clip_grad)?;
        self.optimizer.step(values)?;
        ema::update(&self.teacher, &self.student, values.momentum_teacher)?;
        self.objective.update(&statistics, &Alone)?;
        Ok(total)
    }

    /// Loss of one micro-batch, and its signals if asked for.
    fn forward(
        &self,
        views: &Views,
        values: &StepValues,
        look: bool,
    ) -> Result<(LossOutput, Option<Signals>)> {
        let (b, v) = (views.batch_size, views.num_views());
        let dtype = match self.config.precision {
            Precision::Fp32 => None,
            Precision::Bf16 => Some(Kind::BFloat16),
        };
        let (student, teacher) = torch_ext::autocast(self.config.device, dtype, || {
            let teacher = tch::no_grad(|| self.teacher.network.forward(&views.global, Mode::Eval))?;
            let student = self.embed_all(views)?;
            Ok::<_, Error>((student, teacher))
        })??;
        let d = self.config.head.out_dim;
        let by_view = |x: Tensor, v: i64| Outputs::of_cls(x.to_kind(Kind::Float).view([v, b, d]));
        let (student, teacher) = (by_view(student, v), by_view(teacher, 2));
        let inputs = Inputs {
            student: &student,
            teacher: &teacher,
            masked: None,
            context: StepContext {
                step: values.step,
                steps_per_epoch: values.steps_per_epoch,
                progress: values.progress,
                global_batch: self.config.batch_size,
            },
            collective: &Alone,
        };
        let output = self.objective.evaluate(&inputs)?;
        let signals = look.then(|| Signals::measure(&inputs, &output)).transpose()?;
        Ok((output, signals))
    }

    /// Head output of the student on all views, one pass of the backbone a resolution. `[V B, d]`.
    fn embed_all(&self, views: &Views) -> Result<Tensor> {
        let network = &self.student.network;
        let mut cls = vec![network.backbone.forward_cls(&views.global, Mode::Train)?];
        if let Some(local) = &views.local {
            cls.push(network.backbone.forward_cls(local, Mode::Train)?);
        }
        Ok(network.head.forward(&Tensor::cat(&cls, 0))?) // [V B, D] -> [V B, d]
    }
}

/// Adds the share of one micro-batch to the values of the step.
fn accumulate(
    total: Option<StepOutput>,
    output: &LossOutput,
    signals: Option<Signals>,
    share: f64,
) -> StepOutput {
    let mut step = total.unwrap_or_else(|| StepOutput {
        loss: output.loss.detach().zeros_like(),
        terms: output.terms.iter().map(|(name, term)| (*name, term.zeros_like())).collect(),
        numbers: Vec::new(),
        signals: None,
        grad_norm: output.loss.detach(), // of the step, once all its gradients are there
        rate_retries: 0,
    });
    step.loss = &step.loss + output.loss.detach() * share;
    for ((_, sum), (_, term)) in step.terms.iter_mut().zip(&output.terms) {
        *sum = &*sum + term * share;
    }
    step.numbers.clone_from(&output.numbers);
    step.signals = signals;
    step.rate_retries += u64::from(output.events.jitter + output.events.fp64);
    step
}
