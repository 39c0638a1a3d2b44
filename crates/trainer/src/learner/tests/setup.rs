//! Small learners of each method, with random views.

use std::ops::{Deref, DerefMut};

use data::batch::BatchGeometry;
use model::normalize::Normalize;
use model::{Arch, HeadConfig, ImageRange, ModelConfig};
use objectives::{
    DinoConfig, IbotConfig, KoleoConfig, MaskWeights, Method, ObjectiveConfig, SimDinoConfig,
};
use tch::{Device, Kind, Tensor};

use crate::config::{OptimConfig, Precision};
use crate::input::{MaskedPatches, Views};
use crate::learner::{Learner, LearnerConfig};
use crate::processes::Processes;
use crate::schedule::Schedules;
use crate::step::StepRequest;

pub(super) const BATCH: i64 = 6;
pub(super) const SIDE: i64 = 16;

/// The configs of a learner and of its objective.
#[derive(Clone)]
pub(super) struct Config {
    pub(super) learner: LearnerConfig,
    pub(super) objective: ObjectiveConfig,
}

impl Deref for Config {
    type Target = LearnerConfig;

    fn deref(&self) -> &LearnerConfig {
        &self.learner
    }
}

impl DerefMut for Config {
    fn deref_mut(&mut self) -> &mut LearnerConfig {
        &mut self.learner
    }
}

pub(super) fn config(method: Method) -> Config {
    let prototypes = i64::from(matches!(method, Method::Dino | Method::DinoV2)) * 24;
    let second = matches!(method, Method::SimDinoV2 | Method::DinoV2);
    let objective = ObjectiveConfig {
        method,
        simdino: SimDinoConfig { rate_groups: 2, ..SimDinoConfig::default() },
        dino: DinoConfig::default(),
        koleo: KoleoConfig { loss_weight: if second { 0.1 } else { 0.0 }, groups: 1 },
        ibot: IbotConfig::default(),
    };
    let learner = LearnerConfig {
        model: ModelConfig {
            arch: Arch::VitNano,
            patch_size: 8,
            image_size: SIDE,
            mask_token: second,
            ..ModelConfig::default()
        },
        head: HeadConfig { hidden_dim: 32, out_dim: 16, prototypes, ..HeadConfig::default() },
        // Small enough that some gradients are clipped.
        optim: OptimConfig { clip_grad: Some(0.1), ..OptimConfig::default() },
        precision: Precision::Fp32,
        geometry: BatchGeometry::new(BATCH as usize).unwrap(),
        seed: 0,
        normalize: Normalize { mean: vec![0.0; 3], std: vec![1.0; 3] },
        value_range: Vec::new(),
        device: Device::Cpu,
        cuda_graph: false,
    };
    Config { learner, objective }
}

pub(super) fn learner(config: &Config) -> Learner {
    let objective = config.objective.build().unwrap();
    Learner::new(config.learner.clone(), objective, Processes::Single).unwrap()
}

/// Returns all views of a batch; half of the crops have one masked patch.
pub(super) fn views(config: &Config, seed: u64) -> Views {
    let batch = config.geometry.batch_size() as i64;
    torch_ext::manual_seed(seed);
    let crops = |count: i64, side: i64| {
        Tensor::randn([count * batch, 3, side, side], (Kind::Float, Device::Cpu))
    };
    let patches = (SIDE / 8).pow(2);
    let masked: Vec<i64> = (0..batch).map(|crop| 2 * crop * patches + crop % patches).collect();
    let masks = || {
        let indices = Tensor::from_slice(&masked);
        let flat = Tensor::zeros([2 * batch * patches], (Kind::Bool, Device::Cpu));
        let weights = Tensor::ones([batch], (Kind::Float, Device::Cpu));
        MaskedPatches {
            masks: flat.index_fill(0, &indices, 1).view([2 * batch, patches]),
            indices,
            masked: MaskWeights { weights, crops: 2 * batch as usize },
        }
    };
    Views {
        global: crops(2, SIDE),
        local: (batch == BATCH).then(|| crops(2, SIDE / 2)),
        masks: config.model.mask_token.then(masks),
        part: ImageRange { first: 0, count: batch, of: batch },
        samples: (0..batch as u64).collect(),
    }
}

pub(super) fn request(step: u64, log_metrics: bool) -> StepRequest {
    let schedules = Schedules::new(&OptimConfig::default(), BATCH as usize, 5, 40);
    StepRequest { values: schedules.at(step), seed: step, log_metrics }
}
