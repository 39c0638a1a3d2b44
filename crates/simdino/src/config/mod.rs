//! What a run is told: [`RunConfig`], its published recipes, and everything that can be wrong with it.
//!
//! Every section belongs to the crate that uses it; this module joins them, and checks what only
//! shows when they are seen together. It reads no file and knows no file format: a config comes in
//! as a [`serde_json::Value`]. It does not look at the data or at the machine.

mod length;
pub mod overrides;
pub mod problems;
mod recipe;
pub mod schema;
mod sections;

use data::config::{AugmentConfig, DataConfig, Preset};
use data::masking::MaskConfig;
use model::config::{HeadConfig, ModelConfig};
use objectives::{Method, ObjectiveConfig, PrototypeConfig, SimDinoConfig, TermsConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trainer::config::{InitConfig, OptimConfig, ProbeConfig, TrainConfig};

use crate::device;
use crate::error::{Error, Result};

/// Where a run is kept and on what it runs. Section `run`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSection {
    /// Name of the run and of its folder; empty = the config file's name.
    pub name: String,
    /// Folder that holds the runs.
    pub dir: String,
    /// Seed of every random draw.
    pub seed: u64,
    /// `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
    pub device: String,
    /// Threads of the CPU's tensor operations; 0 = one a core.
    pub threads: usize,
    /// Longest wait, in seconds, for the other processes of a run; a probe must fit in it.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
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
    pub objective: SimDinoConfig,
    /// Prototypes and their targets: the loss of DINO and DINOv2.
    pub prototypes: PrototypeConfig,
    /// Masked patches and KoLeo: what SimDINOv2 and DINOv2 add.
    pub terms: TermsConfig,
    /// How patches are masked, for SimDINOv2 and DINOv2.
    pub masks: MaskConfig,
    /// The optimiser and its schedules.
    pub optim: OptimConfig,
    /// Length and pace.
    pub train: TrainConfig,
    /// The k-NN probe during training.
    pub probe: ProbeConfig,
}

/// Reads one value of the command line, the `VALUE` of `key.path=VALUE`; the error is a sentence.
pub type ReadValue<'a> = &'a dyn Fn(&str) -> std::result::Result<Value, String>;

/// A config with every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The values.
    pub config: RunConfig,
    /// What was changed to fit a short run, one sentence each.
    pub notes: Vec<String>,
}

/// Lays a config's keys, and then the `key.path=value` overrides, on the recipe of the method that
/// they name. Values are checked for their types, not for their meaning: see [`RunConfig::validate`].
///
/// # Errors
/// [`Error::Config`] with all unknown keys and values of a wrong type at once.
pub fn from_document(
    mut document: Value,
    overrides: &[String],
    read_value: ReadValue,
) -> Result<Resolved> {
    let shape = schema::of::<RunConfig>()?;
    let mut problems = problems::find(&shape, &document, &accepts);
    let file = document.clone();
    let mut above = json!({});
    for text in overrides {
        match overrides::read(&shape, text, read_value) {
            Ok(over) => {
                problems.extend(problems::find(&shape, &over, &accepts));
                overrides::merge(&mut above, over.clone());
                overrides::merge(&mut document, over);
            }
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        problems.dedup();
        return Err(Error::Config(problems));
    }
    overrides::drop_empty_sections(&shape, &mut document);
    let recipe = recipe_of(&document)?;
    let mut config = recipe.clone();
    overrides::merge(&mut config, document);
    let mut config: RunConfig =
        serde_json::from_value(config).map_err(|e| Error::Config(vec![e.to_string()]))?;
    config.data.channels = usize::try_from(config.model.in_channels).unwrap_or_default();
    let shortened = length::shorten(&mut config, &[&recipe, &file, &above]);
    Ok(Resolved { config, notes: shortened.into_iter().collect() })
}

/// What the document's keys are laid on: the recipe of its method, with the augmentation of its
/// preset if it names one.
fn recipe_of(document: &Value) -> Result<Value> {
    let method = word(document.get("method"), "method")?.unwrap_or_default();
    let preset = document.get("augment").and_then(|augment| augment.get("preset"));
    let preset: Option<Preset> = word(preset, "augment.preset")?;
    let mut config = RunConfig::of(method);
    if let Some(preset) = preset {
        config.augment = AugmentConfig::of(preset);
    }
    Ok(serde_json::to_value(config)?)
}

fn word<T: serde::de::DeserializeOwned>(value: Option<&Value>, key: &str) -> Result<Option<T>> {
    let read = |value: &Value| serde_json::from_value(value.clone());
    value.map(read).transpose().map_err(|e| Error::Config(vec![format!("{key}: {e}")]))
}

/// Whether the type at a dotted path takes a value: for keys whose kind depends on the value.
fn accepts(path: &str, value: &Value) -> bool {
    let document = path.rsplit('.').fold(value.clone(), |value, key| json!({ key: value }));
    serde_json::from_value::<RunConfig>(document).is_ok()
}

impl RunConfig {
    /// The loss.
    pub fn objective(&self) -> ObjectiveConfig {
        ObjectiveConfig {
            method: self.method,
            simdino: self.objective.clone(),
            prototypes: self.prototypes.clone(),
            terms: self.terms.clone(),
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
