//! The config of a run, [`RunConfig`], with its published recipes and its validation.
//!
//! Every section is defined by the crate that uses it; this module combines them, and checks what
//! depends on several of them. It reads no files and knows no file format: a config is passed as a
//! [`serde_json::Value`]. It does not look at the data or the machine.

mod document;
mod length;
pub mod overrides;
pub mod problems;
mod recipe;
pub mod schema;
mod sections;
mod sharing;
mod sizing;

use std::path::{Path, PathBuf};

use augment::AugmentConfig;
use base::check::{Check, Problem};
use data::DataConfig;
use data::masking::MaskConfig;
use model::{HeadConfig, ModelConfig};
use objectives::{DinoConfig, IbotConfig, KoleoConfig, Method, ObjectiveConfig, SimDinoConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainer::config::{InitConfig, OptimConfig, ProbeConfig, TrainConfig};

pub use self::document::{Resolved, from_document, from_layers};
pub(crate) use self::sections::{GROUP_ROWS, NO_TF32};
pub use self::sizing::{Sizing, sizes_for};
use crate::device::DeviceSpec;

/// Where a run is stored and which hardware it uses. Section `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Name of the run, and of its folder below `dir`. If it is absent, the name of the config file
    /// is used.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub name: Option<String>,
    /// Folder that contains the runs.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub dir: String,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Device that the networks run on. `cuda:N` is the GPU with the index N, from 0.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub device: DeviceSpec,
    /// Make runs on a GPU bitwise reproducible with the same GPUs and versions: libtorch uses only
    /// deterministic algorithms, which can be slower, and an operation that has none stops the run
    /// with an error. Runs on a CPU are reproducible either way.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub deterministic: bool,
    /// Number of threads for tensor operations on the CPU. If it is absent, one per core.
    #[schemars(extend("x-on-resume" = "may change"))]
    #[schemars(range(min = 1, max = 1024))]
    pub threads: Option<usize>,
    /// Longest time, in seconds, that a process waits for the other processes of a run.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub timeout_s: f64,
}

impl Default for RunSection {
    fn default() -> Self {
        Self {
            name: None,
            dir: "runs".into(),
            seed: 0,
            device: DeviceSpec::Auto,
            deterministic: false,
            threads: None,
            timeout_s: 1800.0,
        }
    }
}

/// Highest number of threads. No machine has so many cores, and a system may refuse to start them.
const MOST_THREADS: usize = 1024;
/// Longest timeout: 30 days.
const MOST_SECONDS: f64 = 2_592_000.0;

impl RunSection {
    /// Returns every invalid value.
    pub fn validate(&self) -> Vec<Problem> {
        let mut check = Check::default();
        let name = self.name.as_deref().unwrap_or("run");
        let bad = name.contains(['/', '\\', '\0']) || matches!(name, "" | "." | "..");
        check.that("name", !bad, || format!("must be the name of a single folder (got '{name}')"));
        check.at_least("threads", self.threads, 1);
        check.that("threads", self.threads.is_none_or(|threads| threads <= MOST_THREADS), || {
            format!("must be at most {MOST_THREADS} (got {})", self.threads.unwrap_or_default())
        });
        let seconds = self.timeout_s;
        check.that("timeout_s", seconds > 0.0 && seconds <= MOST_SECONDS, || {
            format!("must be greater than 0 and at most {MOST_SECONDS} (got {seconds})")
        });
        check.problems()
    }

    /// Returns the folder of the run below `dir`; a run without a name is called `run`.
    pub fn folder(&self) -> PathBuf {
        Path::new(&self.dir).join(self.name.as_deref().unwrap_or("run"))
    }
}

/// Config of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Where the run is stored and which hardware it uses.
    pub run: RunSection,
    /// Training method. It applies the published recipe of that method in place of the defaults
    /// below, which are those of SimDINO.
    pub method: Method,
    /// How values that the config does not give are chosen.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub sizing: Sizing,
    /// Where the images are and how they are read.
    pub data: DataConfig,
    /// How images are cropped and augmented.
    pub augment: AugmentConfig,
    /// Architecture of the backbone, a vision transformer.
    pub model: ModelConfig,
    /// Weights that training starts from.
    pub init: InitConfig,
    /// Architecture of the projection head.
    pub head: HeadConfig,
    /// Loss of SimDINO and SimDINOv2: similarity of views and the coding rate.
    pub simdino: SimDinoConfig,
    /// Loss of DINO and DINOv2: prototypes and their targets.
    pub dino: DinoConfig,
    /// Loss of masked patches, which SimDINOv2 and DINOv2 take from iBOT.
    pub ibot: IbotConfig,
    /// KoLeo regularizer, which pushes nearest neighbors apart, for SimDINOv2 and DINOv2.
    pub koleo: KoleoConfig,
    /// How patches are masked, for SimDINOv2 and DINOv2.
    pub masks: MaskConfig,
    /// Optimizer, its schedules, gradient clipping, and the moving average of the teacher.
    pub optim: OptimConfig,
    /// Batch size, length, and precision of a run, and how often it logs and saves.
    pub train: TrainConfig,
    /// Measurements of the teacher during training.
    #[schemars(extend("x-on-resume" = "may change"))]
    pub probe: ProbeConfig,
}

impl RunConfig {
    /// Returns the config of the loss.
    pub fn objective(&self) -> ObjectiveConfig {
        ObjectiveConfig {
            method: self.method,
            simdino: self.simdino.clone(),
            dino: self.dino.clone(),
            ibot: self.ibot.clone(),
            koleo: self.koleo.clone(),
        }
    }
}
