//! How a run is optimised and paced. The only place where these defaults live.

use serde::{Deserialize, Serialize};

/// A wrong value: the key relative to the section it stands in, and what to do about it.
pub type Problem = (&'static str, String);

/// How `base_lr` follows the batch size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum LrScaling {
    /// `base_lr * batch_size / 256` (DINO, SimDINO).
    #[default]
    LinearWrt256,
    /// `base_lr * sqrt(batch_size / 1024)` (DINOv2, SimDINOv2).
    SqrtWrt1024,
    /// `base_lr` as it stands.
    None,
}

impl LrScaling {
    /// The learning rate at a global batch of `batch_size` images.
    pub fn apply(self, base_lr: f64, batch_size: usize) -> f64 {
        let batch = batch_size as f64;
        match self {
            Self::LinearWrt256 => base_lr * batch / 256.0,
            Self::SqrtWrt1024 => base_lr * (batch / 1024.0).sqrt(),
            Self::None => base_lr,
        }
    }
}

/// AdamW, its schedules, gradient clipping and the teacher's average. Section `optim`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimConfig {
    /// Learning rate before scaling by the batch size; 5e-4 in SimDINO.
    pub base_lr: f64,
    /// How `base_lr` follows the global batch size.
    pub lr_scaling: LrScaling,
    /// Learning rate at the end of the cosine; not scaled.
    pub min_lr: f64,
    /// Epochs of linear warm-up from 0; 10 in SimDINO.
    pub warmup_epochs: f64,
    /// Weight decay at the start; 0.04 in SimDINO. Applied to matrices, not to biases, norms or other vectors.
    pub weight_decay: f64,
    /// Weight decay at the end of a cosine; 0.4 in SimDINO.
    pub weight_decay_end: f64,
    /// Decay of the mean of the gradients.
    pub beta1: f64,
    /// Decay of the mean of the squared gradients.
    pub beta2: f64,
    /// Added to the denominator of the update.
    pub adam_eps: f64,
    /// Largest L2 norm of the gradient of each parameter tensor, as in the reference; 0 = no clipping.
    pub clip_grad: f64,
    /// Momentum of the teacher's exponential moving average at the start; 0.996 in SimDINO.
    pub momentum_teacher: f64,
    /// Momentum of the teacher at the end of a cosine; 1 in SimDINO.
    pub momentum_teacher_end: f64,
}

impl Default for OptimConfig {
    fn default() -> Self {
        Self {
            base_lr: 5e-4,
            lr_scaling: LrScaling::LinearWrt256,
            min_lr: 1e-6,
            warmup_epochs: 10.0,
            weight_decay: 0.04,
            weight_decay_end: 0.4,
            beta1: 0.9,
            beta2: 0.999,
            adam_eps: 1e-8,
            clip_grad: 3.0,
            momentum_teacher: 0.996,
            momentum_teacher_end: 1.0,
        }
    }
}

/// Precision of the networks; the objective always runs in fp32 or better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Single precision.
    #[default]
    Fp32,
    /// Matrix products in bfloat16 under autocast, weights in fp32.
    Bf16,
}

/// Length and pace of a run. Section `train`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Images in one optimiser step, over all processes and accumulation steps.
    pub batch_size: usize,
    /// Passes that a step is split into to save memory; the objective stays the same.
    pub accumulate: usize,
    /// Passes over the data.
    pub epochs: f64,
    /// Steps to stop after, for a shorter run with the same schedules; 0 = all of them.
    pub stop_after: u64,
    /// Precision of the networks.
    pub precision: Precision,
    /// Steps between two lines of metrics.
    pub log_every: u64,
    /// Steps between two checkpoints; 0 = once an epoch.
    pub checkpoint_every: u64,
    /// Checkpoints kept, newest first.
    pub keep_checkpoints: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            batch_size: 512,
            accumulate: 1,
            epochs: 100.0,
            stop_after: 0,
            precision: Precision::Fp32,
            log_every: 10,
            checkpoint_every: 0,
            keep_checkpoints: 3,
        }
    }
}

/// The k-NN probe during training. Section `probe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProbeConfig {
    /// Labelled images whose features vote; empty = no probe.
    pub train_path: String,
    /// Labelled images that are classified.
    pub test_path: String,
    /// Epochs between two probes; the last step always has one. 0 = only there.
    pub every_epochs: f64,
    /// Most images of `train_path` that are used; 0 = all.
    pub max_train: usize,
    /// Most images of `test_path` that are used; 0 = all.
    pub max_test: usize,
    /// Neighbours that vote; 20 in DINO.
    pub k: usize,
    /// Temperature of the votes; 0.07 in DINO.
    pub temperature: f64,
    /// Shorter side, in pixels, that images are resized to before the centre crop of
    /// model.image_size; 0 = 8/7 of it, as 256 and 224 in DINO.
    pub resize: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            train_path: String::new(),
            test_path: String::new(),
            every_epochs: 5.0,
            max_train: 5000,
            max_test: 2000,
            k: 20,
            temperature: 0.07,
            resize: 0,
        }
    }
}

/// Names every value that a rule refuses.
struct Check(Vec<Problem>);

impl Check {
    fn positive(&mut self, key: &'static str, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.0.push((key, format!("must be greater than 0 (got {value})")));
        }
    }

    fn not_negative(&mut self, key: &'static str, value: f64) {
        if !(value >= 0.0 && value.is_finite()) {
            self.0.push((key, format!("must not be negative (got {value})")));
        }
    }

    fn share(&mut self, key: &'static str, value: f64) {
        if !(0.0..=1.0).contains(&value) {
            self.0.push((key, format!("must be between 0 and 1 (got {value})")));
        }
    }

    fn decay(&mut self, key: &'static str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            self.0.push((key, format!("must be at least 0 and below 1 (got {value})")));
        }
    }

    fn at_least_one(&mut self, key: &'static str, value: u64) {
        if value == 0 {
            self.0.push((key, "must be at least 1 (got 0)".into()));
        }
    }
}

impl OptimConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check(Vec::new());
        check.positive("base_lr", self.base_lr);
        check.not_negative("min_lr", self.min_lr);
        check.not_negative("warmup_epochs", self.warmup_epochs);
        check.not_negative("weight_decay", self.weight_decay);
        check.not_negative("weight_decay_end", self.weight_decay_end);
        check.decay("beta1", self.beta1);
        check.decay("beta2", self.beta2);
        check.positive("adam_eps", self.adam_eps);
        check.not_negative("clip_grad", self.clip_grad);
        check.share("momentum_teacher", self.momentum_teacher);
        check.share("momentum_teacher_end", self.momentum_teacher_end);
        check.0
    }
}

impl TrainConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check(Vec::new());
        check.at_least_one("batch_size", self.batch_size as u64);
        check.at_least_one("accumulate", self.accumulate as u64);
        check.positive("epochs", self.epochs);
        check.at_least_one("log_every", self.log_every);
        check.at_least_one("keep_checkpoints", self.keep_checkpoints as u64);
        check.0
    }
}

impl ProbeConfig {
    /// Every wrong value, at once.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check(Vec::new());
        check.not_negative("every_epochs", self.every_epochs);
        check.at_least_one("k", self.k as u64);
        check.positive("temperature", self.temperature);
        check.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(OptimConfig::default().validate(), []);
        assert_eq!(TrainConfig::default().validate(), []);
        assert_eq!(ProbeConfig::default().validate(), []);
    }

    #[test]
    fn every_wrong_value_is_named() {
        let optim = OptimConfig {
            base_lr: f64::NAN,
            beta2: 1.0,
            momentum_teacher: 1.5,
            clip_grad: -1.0,
            ..Default::default()
        };
        let keys: Vec<_> = optim.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["base_lr", "beta2", "clip_grad", "momentum_teacher"]);
        let train = TrainConfig { batch_size: 0, epochs: 0.0, ..Default::default() };
        let keys: Vec<_> = train.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["batch_size", "epochs"]);
        let probe = ProbeConfig { temperature: 0.0, ..Default::default() };
        assert_eq!(
            probe.validate(),
            [("temperature", "must be greater than 0 (got 0)".to_owned())]
        );
    }

    #[test]
    fn learning_rate_follows_the_batch() {
        assert_eq!(LrScaling::LinearWrt256.apply(5e-4, 512), 1e-3);
        assert_eq!(LrScaling::SqrtWrt1024.apply(4e-3, 256), 2e-3);
        assert_eq!(LrScaling::None.apply(1e-3, 7), 1e-3);
    }
}
