//! Compares twenty steps of each method with plain formulas in torch, in double precision: the loss
//! of each step, and every parameter of student and teacher after the last step. See
//! tools/parity/training.py.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers outside of tests")]

#[path = "../../model/tests/common/mod.rs"]
mod hash;

use data::batch::BatchGeometry;
use hash::{assert_close, hashed, tensor};
use model::normalize::Normalize;
use model::weights::{WeightsFile, read_safetensors};
use model::{Arch, HeadConfig, ImageRange, ModelConfig, PosInterpolation};
use model::{DropPathForm, DropPathSchedule};
use objectives::{
    Centering, DinoConfig, IbotConfig, KoleoConfig, MaskWeights, Method, Objective,
    ObjectiveConfig, RatePrecision, SimDinoConfig, WarmupForm,
};
use tch::{Device, Kind, Tensor};
use trainer::branch::Branch;
use trainer::config::{ClipScope, FreezeForm, LrScaling, NoDecay, OptimConfig, Precision};
use trainer::input::{MaskedPatches, Views};
use trainer::learner::{Learner, LearnerConfig};
use trainer::processes::Processes;
use trainer::schedule::Schedules;
use trainer::step::{StepRequest, StepResult};

const BATCH: i64 = 6;
const LOCAL_VIEWS: i64 = 2;
const STEPS: u64 = 20;
const PATCHES: i64 = 16;
const TOLERANCE: f64 = 1e-8;

fn first(clip_grad: f64) -> OptimConfig {
    OptimConfig { warmup_epochs: 2.0, clip_grad: Some(clip_grad), ..OptimConfig::default() }
}

fn second() -> OptimConfig {
    OptimConfig {
        base_lr: 4e-3,
        lr_scaling: LrScaling::SqrtWrt1024,
        layerwise_decay: 0.9,
        patch_embed_lr_mult: 0.2,
        no_decay: NoDecay::Names,
        clip_scope: ClipScope::Module,
        freeze_form: FreezeForm::LearningRate,
        ..first(0.2)
    }
}

fn second_model(layer_scale: f64) -> ModelConfig {
    ModelConfig { mask_token: true, layer_scale: Some(layer_scale), ..first_model() }
}

fn first_model() -> ModelConfig {
    ModelConfig {
        arch: Arch::VitNano,
        patch_size: 8,
        image_size: 32,
        drop_path_rate: 0.0,
        drop_path_schedule: DropPathSchedule::Linear,
        drop_path_form: DropPathForm::Image,
        ..ModelConfig::default()
    }
}

fn config(method: Method) -> LearnerConfig {
    let prototypes = i64::from(matches!(method, Method::Dino | Method::DinoV2)) * 24;
    let (model, optim) = match method {
        Method::SimDino | Method::Dino => (first_model(), first(0.02)),
        Method::SimDinoV2 => (
            ModelConfig {
                num_register_tokens: 4,
                pos_interpolation: PosInterpolation::Antialias,
                ..second_model(0.1)
            },
            OptimConfig {
                warmup_start_lr: 1e-6,
                warmup_form: WarmupForm::Exclusive,
                momentum_teacher: 0.9,
                ..second()
            },
        ),
        Method::DinoV2 => (second_model(1e-5), OptimConfig { momentum_teacher: 0.992, ..second() }),
    };
    LearnerConfig {
        model,
        head: HeadConfig {
            hidden_dim: 32,
            out_dim: 16,
            prototypes,
            norm_last_layer: method == Method::Dino,
            ..HeadConfig::default()
        },
        optim,
        precision: Precision::Fp64,
        geometry: BatchGeometry::new(BATCH as usize).unwrap(),
        seed: 0,
        normalize: Normalize { mean: vec![0.0; 3], std: vec![1.0; 3] },
        value_range: Vec::new(),
        device: Device::Cpu,
        cuda_graph: false,
    }
}

fn objective(method: Method) -> Box<dyn Objective> {
    let config = ObjectiveConfig {
        method,
        simdino: SimDinoConfig {
            rate_groups: 2,
            precision: RatePrecision::Fp64,
            ..SimDinoConfig::default()
        },
        dino: DinoConfig {
            teacher_temp: 0.07,
            teacher_temp_warmup_epochs: 2.0,
            centering: Centering::Softmax,
            ..DinoConfig::default()
        },
        koleo: KoleoConfig {
            loss_weight: if method == Method::DinoV2 { 0.1 } else { 0.0 },
            groups: 1,
        },
        ibot: IbotConfig::default(),
    };
    config.build().unwrap()
}

/// Fills the weights as in the reference, with one stream per variable in the order of their names;
/// untrained ones are left unchanged.
fn fill(side: &Branch, template: &Branch) {
    let trained = template.named().into_iter().map(|(_, variable)| variable.requires_grad());
    for ((stream, (name, variable)), trained) in (0..).zip(side.named()).zip(trained) {
        if trained {
            let size = variable.size();
            let is_norm = name.ends_with("weight") && size.len() == 1;
            let values = tensor(&size, stream, 0.15, if is_norm { 1.0 } else { 0.0 });
            tch::no_grad(|| variable.shallow_clone().copy_(&values));
        }
    }
}

/// Returns crops in which each view is the image plus noise.
fn crops(step: u64, stream: u64, views: i64, side: i64) -> Tensor {
    let at = 10 * step + stream;
    let noise = tensor(&[views, BATCH, 3, side, side], 5000 + at, 1.0, 0.0).to_kind(Kind::Double);
    let image = tensor(&[BATCH, 3, side, side], 5005 + at, 1.0, 0.0).to_kind(Kind::Double);
    (image + noise * 0.5).flatten(0, 1)
}

/// Masks about a third of the patches of every second crop.
fn masks(step: u64) -> MaskedPatches {
    let (crops, patches) = (2 * BATCH as usize, PATCHES as usize);
    let values = hashed(crops * patches, 5008 + 10 * step);
    let hidden = |crop: usize, patch: usize| {
        crop.is_multiple_of(2) && values[crop * patches + patch] as f32 > 0.3
    };
    let (mut flat, mut indices, mut weights) = (Vec::new(), Vec::new(), Vec::<f64>::new());
    for crop in 0..crops {
        let row: Vec<bool> = (0..patches).map(|patch| hidden(crop, patch)).collect();
        let count = row.iter().filter(|&&hidden| hidden).count();
        let places = (0..patches).filter(|&patch| row[patch]);
        indices.extend(places.map(|patch| (crop * patches + patch) as i64));
        weights.extend((0..count).map(|_| 1.0 / count as f64));
        flat.extend(row);
    }
    MaskedPatches {
        masks: Tensor::from_slice(&flat).view([crops as i64, PATCHES]),
        indices: Tensor::from_slice(&indices),
        masked: MaskWeights { weights: Tensor::from_slice(&weights), crops },
    }
}

fn views(step: u64, masked: bool) -> Views {
    Views {
        global: crops(step, 0, 2, 32),
        local: Some(crops(step, 1, LOCAL_VIEWS, 16)),
        masks: masked.then(|| masks(step)),
        part: ImageRange { first: 0, count: BATCH, of: BATCH },
        samples: Vec::new(),
    }
}

/// Returns the norm of a parameter, and its inner products with hashed numbers.
fn fingerprint(parameter: &Tensor) -> Tensor {
    let flat = parameter.detach().flatten(0, -1);
    let products = (0..3).map(|i| {
        let numbers = tensor(&flat.size(), 9000 + i, 1.0, 0.0).to_kind(Kind::Double);
        flat.dot(&numbers)
    });
    Tensor::stack(&[flat.norm()].into_iter().chain(products).collect::<Vec<_>>(), 0)
}

fn check_side(fixture: &WeightsFile, name: &str, side: &Branch) {
    for (parameter, value) in side.named() {
        let key = format!("{name}/{parameter}");
        assert_close(&key, &fingerprint(&value), &fixture.tensors[&key], TOLERANCE);
    }
    let of_side = fixture.tensors.keys().filter(|key| key.starts_with(&format!("{name}/"))).count();
    assert_eq!(of_side, side.named().len(), "{name}: every parameter is compared");
}

fn check(method: Method, name: &str) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/training.safetensors");
    let fixture = read_safetensors(std::path::Path::new(path)).unwrap();
    let config = config(method);
    let schedules = Schedules::new(&config.optim, BATCH as usize, 5, 40);
    let mut learner = Learner::new(config, objective(method), Processes::Single).unwrap();
    fill(&learner.student, &learner.student);
    fill(&learner.teacher, &learner.student);
    let mut losses = Vec::new();
    for step in 0..STEPS {
        let request = StepRequest { values: schedules.at(step), seed: 0, log_metrics: step == 3 };
        let views = views(step, learner.needs().patches);
        let mut views = Some(views);
        let result = learner.step(&request, || Ok(views.take().unwrap())).unwrap();
        let StepResult::Done(output) = result else { panic!("{name}: step {step} was skipped") };
        losses.push(output.loss.double_value(&[]));
    }
    let expected = &fixture.tensors[&format!("{name}/losses")];
    assert_close(name, &Tensor::from_slice(&losses), expected, TOLERANCE);
    check_side(&fixture, &format!("{name}/student"), &learner.student);
    check_side(&fixture, &format!("{name}/teacher"), &learner.teacher);
}

#[test]
fn simdino_trains_as_the_reference_does() {
    check(Method::SimDino, "simdino");
}

#[test]
fn simdinov2_trains_as_the_reference_does() {
    check(Method::SimDinoV2, "simdinov2");
}

#[test]
fn dino_trains_as_the_reference_does() {
    check(Method::Dino, "dino");
}

#[test]
fn dinov2_trains_as_the_reference_does() {
    check(Method::DinoV2, "dinov2");
}
