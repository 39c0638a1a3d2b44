//! Student, teacher and one optimiser step. The loop around it is in [`crate::run`].

use model::normalize::Normalize;
use model::{Mode, Network};
use objectives::config::SimDinoConfig;
use objectives::simdino::{SimDinoLoss, SimDinoOutput, StepContext};
use tch::{Device, Kind, Tensor, nn};

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
    pub objective: SimDinoConfig,
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
    /// Compression (similarity of student and teacher), 0-dim.
    pub compression: Tensor,
    /// Expansion (weighted coding rate), 0-dim.
    pub expansion: Tensor,
    /// Value of the expansion when all features are equal.
    pub expansion_floor: f64,
    /// Largest value that the expansion can take.
    pub expansion_ceiling: f64,
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
    objective: SimDinoLoss,
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
            objective: SimDinoLoss::new(&config.objective)?,
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

    /// One optimiser step over `accumulate` micro-batches that `next_views` supplies:
    /// forward, backward, clip, update, moving average.
    pub fn step(
        &mut self,
        values: &StepValues,
        mut next_views: impl FnMut() -> Result<Views>,
    ) -> Result<StepOutput> {
        self.trainable.iter_mut().for_each(Tensor::zero_grad);
        let mut total: Option<StepOutput> = None;
        for _ in 0..self.config.accumulate {
            let views = next_views()?;
            let output = self.forward(&views, values.progress)?;
            let share = 1.0 / self.config.accumulate as f64;
            (&output.loss * share).f_backward()?;
            total = Some(accumulate(total, &output, share));
        }
        let mut total = total.ok_or_else(|| {
            Error::Settings("train.accumulate: must be at least 1 (got 0)".into())
        })?;
        total.grad_norm = clip_per_tensor(&self.trainable, self.config.optim.clip_grad)?;
        self.optimizer.step(values)?;
        ema::update(&self.teacher, &self.student, values.momentum_teacher)?;
        Ok(total)
    }

    /// Loss of one micro-batch.
    fn forward(&self, views: &Views, progress: f64) -> Result<SimDinoOutput> {
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
        let context = StepContext {
            progress,
            groups: self.config.objective.rate_groups / self.config.accumulate,
            global_batch: self.config.batch_size,
        };
        let student = student.to_kind(Kind::Float).view([v, b, d]); // [V B, d] -> [V, B, d]
        let teacher = teacher.to_kind(Kind::Float).view([2, b, d]);
        Ok(self.objective.forward(&student, &teacher, context)?)
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
fn accumulate(total: Option<StepOutput>, output: &SimDinoOutput, share: f64) -> StepOutput {
    let part = |t: &Tensor, so_far: Option<&Tensor>| {
        let mine = t.detach() * share;
        so_far.map_or_else(|| mine.shallow_clone(), |s| s + &mine)
    };
    let before = total.as_ref();
    StepOutput {
        loss: part(&output.loss, before.map(|t| &t.loss)),
        compression: part(&output.compression, before.map(|t| &t.compression)),
        expansion: part(&output.expansion, before.map(|t| &t.expansion)),
        expansion_floor: output.expansion_floor,
        expansion_ceiling: output.expansion_ceiling,
        grad_norm: output.loss.detach(),
        rate_retries: before.map_or(0, |t| t.rate_retries)
            + u64::from(output.events.jitter + output.events.fp64),
    }
}
