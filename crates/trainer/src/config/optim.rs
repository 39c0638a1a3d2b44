//! The optimizer, its schedules, gradient clipping, and the teacher's average.

use base::check::{Check, Problem};
use objectives::WarmupForm;
use serde::{Deserialize, Serialize};

/// How `base_lr` scales with the batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum LrScaling {
    /// `base_lr * batch_size / 256` (DINO, SimDINO).
    #[default]
    LinearWrt256,
    /// `base_lr * sqrt(batch_size / 1024)` (DINOv2, SimDINOv2).
    SqrtWrt1024,
    /// `base_lr`, unscaled.
    None,
}

impl LrScaling {
    /// Returns the learning rate for a batch of `batch_size` images.
    pub fn apply(self, base_lr: f64, batch_size: usize) -> f64 {
        let batch = batch_size as f64;
        match self {
            Self::LinearWrt256 => base_lr * batch / 256.0,
            Self::SqrtWrt1024 => base_lr * (batch / 1024.0).sqrt(),
            Self::None => base_lr,
        }
    }
}

/// How gradients become updates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW: Adam with decoupled weight decay.
    #[default]
    Adamw,
    /// Stochastic gradient descent with momentum.
    Sgd,
    /// LARS: SGD that scales the step of each matrix to the norm of the matrix.
    Lars,
}

/// Which parameters are excluded from weight decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum NoDecay {
    /// Biases and all other one-dimensional parameters (DINO, SimDINO).
    #[default]
    Vectors,
    /// Biases, norms, and LayerScale, by name (DINOv2, SimDINOv2).
    Names,
}

/// Which gradients are clipped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClipScope {
    /// Each parameter tensor separately (DINO, SimDINO).
    #[default]
    Tensor,
    /// The backbone as a whole, and each head as a whole (DINOv2, SimDINOv2).
    Module,
}

/// How the prototypes are frozen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FreezeForm {
    /// Prototypes have no gradient, and the optimizer skips them (DINO).
    #[default]
    Gradient,
    /// Prototypes have a learning rate of 0, but the optimizer sees their gradients (DINOv2).
    LearningRate,
}

/// The optimizer, its schedules, gradient clipping and the teacher's average. Section `optim`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Optimizer. AdamW in all four papers.
    pub optimizer: OptimizerKind,
    /// Learning rate before it is scaled by the batch size. 5e-4 in SimDINO and DINO, 4e-3 in
    /// SimDINOv2 and DINOv2.
    pub base_lr: f64,
    /// How the learning rate depends on the batch size, `train.batch_size`.
    pub lr_scaling: LrScaling,
    /// Learning rate at the end of the cosine schedule. It is not scaled.
    pub min_lr: f64,
    /// Length of the linear warm-up of the learning rate, in epochs. 10 in all four recipes.
    pub warmup_epochs: f64,
    /// Learning rate at the start of the warm-up. 0 in SimDINO, DINO, and DINOv2, 1e-6 in SimDINOv2.
    pub warmup_start_lr: f64,
    /// First step with the full learning rate. `exclusive` in SimDINOv2.
    pub warmup_form: WarmupForm,
    /// Ratio of the learning rate of a block to that of the next block. 0.9 in SimDINOv2 and DINOv2;
    /// 1 disables it.
    pub layerwise_decay: f64,
    /// Factor for the learning rate of the patch embedding. 0.2 in SimDINOv2 and DINOv2.
    pub patch_embed_lr_mult: f64,
    /// Weight decay at the start. 0.04 in all four recipes.
    pub weight_decay: f64,
    /// Weight decay at the end of its cosine schedule. 0.4 in all four recipes.
    pub weight_decay_end: f64,
    /// Parameters without weight decay.
    pub no_decay: NoDecay,
    /// AdamW: decay rate of the moving average of the gradients.
    pub beta1: f64,
    /// AdamW: decay rate of the moving average of the squared gradients.
    pub beta2: f64,
    /// AdamW: constant that is added to the denominator of the update.
    pub adam_eps: f64,
    /// SGD and LARS: momentum.
    pub momentum: f64,
    /// LARS: ratio of the length of a step to that of the parameter, before the learning rate. 0.001
    /// in DINO.
    pub trust_coefficient: f64,
    /// Largest L2 norm of a gradient; larger ones are scaled down. If it is null, gradients are not
    /// clipped. 3 in all four recipes.
    pub clip_grad: Option<f64>,
    /// Gradients whose norm is computed and clipped together.
    pub clip_scope: ClipScope,
    /// Number of epochs at the start in which the prototypes do not change. 1 in DINO and DINOv2.
    /// Without prototypes, it has no effect.
    pub freeze_last_layer_epochs: f64,
    /// How the prototypes are frozen.
    pub freeze_form: FreezeForm,
    /// Momentum of the teacher's exponential moving average at the start. 0.996 in SimDINO and DINO,
    /// 0.9 in SimDINOv2, 0.992 in DINOv2. If it is 0 here and at the end, the teacher equals the
    /// student.
    pub momentum_teacher: f64,
    /// Momentum of the teacher's moving average at the end of its cosine schedule.
    pub momentum_teacher_end: f64,
    /// Batch size, in images, that the momentum of the teacher is given for. With a batch of another
    /// size, the momentum of each step is raised to the power of the ratio of the two sizes, so that
    /// the teacher averages over as many images. If it is null, the momentum holds for a batch of
    /// any size, as in the papers.
    pub momentum_batch: Option<usize>,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            optimizer: OptimizerKind::Adamw,
            base_lr: 5e-4,
            lr_scaling: LrScaling::LinearWrt256,
            min_lr: 1e-6,
            warmup_epochs: 10.0,
            warmup_start_lr: 0.0,
            warmup_form: WarmupForm::Inclusive,
            layerwise_decay: 1.0,
            patch_embed_lr_mult: 1.0,
            weight_decay: 0.04,
            weight_decay_end: 0.4,
            no_decay: NoDecay::Vectors,
            beta1: 0.9,
            beta2: 0.999,
            adam_eps: 1e-8,
            momentum: 0.9,
            trust_coefficient: 1e-3,
            clip_grad: Some(3.0),
            clip_scope: ClipScope::Tensor,
            freeze_last_layer_epochs: 1.0,
            freeze_form: FreezeForm::Gradient,
            momentum_teacher: 0.996,
            momentum_teacher_end: 1.0,
            momentum_batch: None,
        }
    }
}

impl OptimConfig {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        check.positive("base_lr", self.base_lr);
        check.not_negative("min_lr", self.min_lr);
        check.not_negative("warmup_epochs", self.warmup_epochs);
        check.not_negative("warmup_start_lr", self.warmup_start_lr);
        check.positive("layerwise_decay", self.layerwise_decay);
        check.fraction("layerwise_decay", self.layerwise_decay);
        check.not_negative("patch_embed_lr_mult", self.patch_embed_lr_mult);
        check.not_negative("weight_decay", self.weight_decay);
        check.not_negative("weight_decay_end", self.weight_decay_end);
        check.below_one("beta1", self.beta1);
        check.below_one("beta2", self.beta2);
        check.positive("adam_eps", self.adam_eps);
        check.below_one("momentum", self.momentum);
        check.positive("trust_coefficient", self.trust_coefficient);
        check.positive("clip_grad", self.clip_grad);
        check.not_negative("freeze_last_layer_epochs", self.freeze_last_layer_epochs);
        check.fraction("momentum_teacher", self.momentum_teacher);
        check.fraction("momentum_teacher_end", self.momentum_teacher_end);
        check.at_least("momentum_batch", self.momentum_batch, 1);
        check.problems()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_value_is_named() {
        assert_eq!(OptimConfig::default().validate(), []);
        let optim = OptimConfig {
            base_lr: f64::NAN,
            layerwise_decay: 1.5,
            beta2: 1.0,
            momentum_teacher: 1.5,
            clip_grad: Some(-1.0),
            ..Default::default()
        };
        let keys: Vec<_> = optim.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["base_lr", "layerwise_decay", "beta2", "clip_grad", "momentum_teacher"]);
    }

    #[test]
    fn learning_rate_follows_the_batch() {
        assert_eq!(LrScaling::LinearWrt256.apply(5e-4, 512), 1e-3);
        assert_eq!(LrScaling::SqrtWrt1024.apply(4e-3, 256), 2e-3);
        assert_eq!(LrScaling::None.apply(1e-3, 7), 1e-3);
    }
}
