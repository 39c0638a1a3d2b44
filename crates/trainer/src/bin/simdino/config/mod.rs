//! What a run is told: one YAML file and `key=value` overrides become a [`RunConfig`], or a list of
//! everything that is wrong with them.
//!
//! Every section belongs to the crate that uses it; this module joins them, and checks what only
//! shows when they are seen together. It does not look at the data or at the machine.

mod length;
pub mod overrides;
pub mod problems;
#[cfg(test)]
mod published;
mod recipe;
#[cfg(test)]
mod reference;
pub mod schema;
mod sections;
pub mod yaml;

use std::fs;
use std::path::Path;

use data::PixelFormat;
use data::config::{AugmentConfig, DataConfig, Preset};
use data::masking::MaskConfig;
use model::config::{HeadConfig, ModelConfig};
use objectives::{Method, ObjectiveConfig, PrototypeConfig, SimDinoConfig, TermsConfig};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use trainer::config::{InitConfig, OptimConfig, ProbeConfig, TrainConfig};

use crate::device;
use crate::failure::{Failure, Result};

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

/// A config that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values, every default filled in.
    pub config: RunConfig,
    /// The file as written.
    pub text: String,
    /// What was made to fit the rest, in a sentence each.
    pub notes: Vec<String>,
    /// Settings that have no effect in this run, or not the one that one expects.
    pub warnings: Vec<String>,
}

/// Reads a config file, lays the overrides on it and checks everything.
///
/// # Errors
/// All problems at once, each a sentence that starts with its key.
pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded> {
    let loaded = load_unchecked(path, overrides)?;
    let problems = loaded.config.validate();
    if problems.is_empty() { Ok(loaded) } else { Err(Failure::problems(problems)) }
}

/// The `augment` section alone, of a config file or with its defaults, checked, and the pixels that
/// it is for.
///
/// # Errors
/// The file cannot be read, or a value of the section is wrong.
pub fn augment(path: Option<&Path>, overrides: &[String]) -> Result<(AugmentConfig, PixelFormat)> {
    let RunConfig { augment, data, .. } = match path {
        Some(file) => load_unchecked(file, overrides)?.config,
        None => parse("{}", "the command line", overrides)?,
    };
    let unfit = augment.validate_channels(data.channels);
    let problems = augment.validate().into_iter().chain(unfit);
    let problems: Vec<_> = problems.map(|(key, what)| format!("augment.{key}: {what}")).collect();
    if problems.is_empty() {
        Ok((augment, data.pixels()))
    } else {
        Err(Failure::problems(problems))
    }
}

/// As [`load`], without the checks that need the meaning of a value: for looking at a config.
///
/// # Errors
/// All unknown keys and values of a wrong type at once.
pub fn load_unchecked(path: &Path, overrides: &[String]) -> Result<Loaded> {
    let text = fs::read_to_string(path).map_err(|e| unreadable(path, &e))?;
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let (mut config, shortened) = read(&text, &path.display().to_string(), overrides)?;
    if config.run.name.is_empty() {
        config.run.name = stem.unwrap_or_default();
    }
    let warnings = config.without_effect();
    Ok(Loaded { config, text, notes: shortened.into_iter().collect(), warnings })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let path = path.display();
    Failure::usage(match error.kind() {
        std::io::ErrorKind::NotFound => format!("config file {path} does not exist"),
        std::io::ErrorKind::InvalidData => format!("config file {path} is not UTF-8 text"),
        _ => format!("cannot read the config file {path}: {error}"),
    })
}

/// The config of [`read`] alone.
fn parse(text: &str, name: &str, overrides: &[String]) -> Result<RunConfig> {
    read(text, name, overrides).map(|(config, _)| config)
}

/// Reads a config from text, and says what was made to fit a short run; `name` stands for the text in
/// messages.
fn read(text: &str, name: &str, overrides: &[String]) -> Result<(RunConfig, Option<String>)> {
    let shape = schema::of::<RunConfig>()?;
    let mut document =
        yaml::read(text).map_err(|sentence| Failure::usage(format!("{name}: {sentence}")))?;
    match &document {
        Value::Null => return Err(Failure::usage(format!("{name}: the config is empty"))),
        Value::Object(_) => {}
        _ => {
            let message = format!("{name}: expected sections of keys such as 'data:' and 'train:'");
            return Err(Failure::usage(message));
        }
    }
    let mut problems = problems::find(&shape, &document, &accepts);
    let file = document.clone();
    let mut above = json!({});
    for text in overrides {
        match overrides::read(&shape, text) {
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
        return Err(Failure::problems(problems));
    }
    overrides::drop_empty_sections(&shape, &mut document);
    let recipe = recipe_of(&document)?;
    let mut config = recipe.clone();
    overrides::merge(&mut config, document);
    let mut config: RunConfig =
        serde_json::from_value(config).map_err(|e| Failure::usage(format!("{name}: {e}")))?;
    config.data.channels = usize::try_from(config.model.in_channels).unwrap_or_default();
    let shortened = length::shorten(&mut config, &[&recipe, &file, &above]);
    Ok((config, shortened))
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
    value.map(read).transpose().map_err(|e| Failure::usage(format!("{key}: {e}")))
}

/// Whether the type at a dotted path takes a value: for keys whose kind depends on the value.
fn accepts(path: &str, value: &Value) -> bool {
    let document = path.rsplit('.').fold(value.clone(), |value, key| json!({ key: value }));
    serde_json::from_value::<RunConfig>(document).is_ok()
}

impl RunConfig {
    /// The config as YAML, with every key.
    ///
    /// # Errors
    /// None in practice: every section can be written.
    pub fn to_yaml(&self) -> Result<String> {
        yaml::write(self).map_err(Failure::failed)
    }

    /// The loss.
    pub fn objective(&self) -> ObjectiveConfig {
        ObjectiveConfig {
            method: self.method,
            simdino: self.objective.clone(),
            prototypes: self.prototypes.clone(),
            terms: self.terms.clone(),
        }
    }

    fn device_problem(&self) -> Option<String> {
        let name = &self.run.device;
        device::parse(name)
            .is_none()
            .then(|| format!("run.device: expected {}, got '{name}'", device::EXPECTED))
    }
}

#[cfg(test)]
mod tests;
