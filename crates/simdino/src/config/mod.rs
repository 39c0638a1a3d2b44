//! What a run is told: [`RunConfig`], its published recipes, and everything that can be wrong with it.
//!
//! Every section belongs to the crate that uses it; this module joins them, and checks what only
//! shows when they are seen together. It reads no file and knows no file format: a config comes in
//! as a [`serde_json::Value`]. It does not look at the data or at the machine.

mod document;
mod length;
pub mod overrides;
pub mod problems;
mod recipe;
pub mod schema;
mod sections;
mod sharing;

use augment::AugmentConfig;
use data::DataConfig;
use data::masking::MaskConfig;
use model::{HeadConfig, ModelConfig};
use objectives::{DinoConfig, IbotConfig, KoleoConfig, Method, ObjectiveConfig, SimDinoConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainer::config::{InitConfig, OptimConfig, ProbeConfig, TrainConfig};

pub use self::document::{Resolved, from_document};
use crate::device;

/// Where a run is kept and on what it runs. Section `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Name of the run and of its folder; empty = the config file's name.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub name: String,
    /// Folder that holds the runs.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub dir: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub device: String,
    /// Threads of the CPU's tensor operations; 0 = one per core.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub threads: usize,
    /// Longest wait, in seconds, for the other processes of a run; a probe must fit in it.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub timeout_s: f64,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            name: String::new(),
            dir: "runs".into(),
            seed: 0,
            device: "auto".into(),
            threads: 0,
            timeout_s: 1800.0,
        }
    }
}

/// Everything a run is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Where the run is kept and on what it runs.
    pub run: RunSection,
    /// What is trained. Its published recipe takes the place of the defaults below, which are SimDINO's.
    pub method: Method,
    /// Where the images are.
    pub data: DataConfig,
    /// How they are cropped.
    pub augment: AugmentConfig,
    /// The backbone.
    pub model: ModelConfig,
    /// Weights to start from.
    pub init: InitConfig,
    /// The projection head.
    pub head: HeadConfig,
    /// Similarity and coding rate: the loss of SimDINO and SimDINOv2.
    pub simdino: SimDinoConfig,
    /// Prototypes and their targets: the loss of DINO and DINOv2.
    pub dino: DinoConfig,
    /// The loss of masked patches: what SimDINOv2 and DINOv2 take from iBOT.
    pub ibot: IbotConfig,
    /// KoLeo, which pushes nearest neighbors apart; for SimDINOv2 and DINOv2.
    pub koleo: KoleoConfig,
    /// How patches are masked, for SimDINOv2 and DINOv2.
    pub masks: MaskConfig,
    /// The optimizer and its schedules.
    pub optim: OptimConfig,
    /// Length and pace.
    pub train: TrainConfig,
    /// The k-NN probe during training.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub probe: ProbeConfig,
}

impl RunConfig {
    /// The loss.
    pub fn objective(&self) -> ObjectiveConfig {
        ObjectiveConfig {
            method: self.method,
            simdino: self.simdino.clone(),
            dino: self.dino.clone(),
            ibot: self.ibot.clone(),
            koleo: self.koleo.clone(),
        }
    }

    /// What is wrong with `run.device`, if anything.
    fn device_problem(&self) -> Option<String> {
        let name = &self.run.device;
        device::parse(name)
            .is_none()
            .then(|| format!("run.device: expected {}, got '{name}'", device::EXPECTED))
    }
}
