//! The published recipe of each method, as changes to the defaults.
//!
//! The defaults of the config structs are those of SimDINO. `method: NAME` applies the recipe of
//! that method to them, and the keys of the file override both, so a config that names only a
//! method and the images is complete.

use augment::{AugmentConfig, Preset};
use model::{DropPathForm, DropPathSchedule, HeadConfig, ModelConfig, PosInterpolation};
use objectives::{DinoConfig, KoleoConfig, Method, WarmupForm};
use trainer::config::{ClipScope, FreezeForm, LrScaling, NoDecay, OptimConfig, TrainConfig};

use super::RunConfig;

impl RunConfig {
    /// Returns the recipe of a method.
    ///
    /// # Source
    /// SimDINO: simdino/main_dino.py and README of RobinWu218/SimDINO@8149fc4. SimDINOv2:
    /// simdino_config.yaml there. DINO: main_dino.py of facebookresearch/dino@7c446df. DINOv2:
    /// ssl_default_config.yaml of facebookresearch/dinov2@b8931f7.
    pub fn of(method: Method) -> Self {
        let config = Self { method, ..Self::default() };
        match method {
            Method::SimDino => config,
            Method::SimDinoV2 => simdinov2(config),
            Method::Dino => dino(config),
            Method::DinoV2 => dinov2(config),
        }
    }
}

fn simdinov2(config: RunConfig) -> RunConfig {
    RunConfig {
        augment: AugmentConfig::of(Preset::Simdinov2),
        model: ModelConfig {
            drop_path_rate: 0.2,
            num_register_tokens: 4,
            layer_scale: Some(0.1),
            pos_interpolation: PosInterpolation::Antialias,
            ..second_generation()
        },
        optim: OptimConfig {
            warmup_start_lr: 1e-6,
            warmup_form: WarmupForm::Exclusive,
            momentum_teacher: 0.9,
            ..second_optimizer()
        },
        train: TrainConfig { batch_size: 1024, ..config.train.clone() },
        ..config
    }
}

fn dino(config: RunConfig) -> RunConfig {
    RunConfig {
        augment: AugmentConfig::of(Preset::Dino),
        head: HeadConfig { prototypes: 65_536, ..HeadConfig::default() },
        ..config
    }
}

/// The batch size and number of groups are those of the comparison in the SimDINO paper: 8 GPUs
/// with 128 images each.
fn dinov2(config: RunConfig) -> RunConfig {
    RunConfig {
        augment: AugmentConfig::of(Preset::Dinov2),
        model: ModelConfig { drop_path_rate: 0.3, layer_scale: Some(1e-5), ..second_generation() },
        head: HeadConfig { prototypes: 65_536, norm_last_layer: false, ..HeadConfig::default() },
        dino: DinoConfig {
            teacher_temp: 0.07,
            teacher_temp_warmup_epochs: 30.0,
            ..DinoConfig::default()
        },
        koleo: KoleoConfig { loss_weight: 0.1, ..KoleoConfig::default() },
        optim: OptimConfig { momentum_teacher: 0.992, ..second_optimizer() },
        train: TrainConfig { batch_size: 1024, ..config.train.clone() },
        ..config
    }
}

/// Settings that the backbones of SimDINOv2 and DINOv2 share.
fn second_generation() -> ModelConfig {
    ModelConfig {
        drop_path_schedule: DropPathSchedule::Uniform,
        drop_path_form: DropPathForm::Batch,
        mask_token: true,
        token_std: 1e-6,
        ..ModelConfig::default()
    }
}

/// Settings that the optimizers of SimDINOv2 and DINOv2 share.
fn second_optimizer() -> OptimConfig {
    OptimConfig {
        base_lr: 4e-3,
        lr_scaling: LrScaling::SqrtWrt1024,
        layerwise_decay: 0.9,
        patch_embed_lr_mult: 0.2,
        no_decay: NoDecay::Names,
        clip_scope: ClipScope::Module,
        freeze_form: FreezeForm::LearningRate,
        ..OptimConfig::default()
    }
}
