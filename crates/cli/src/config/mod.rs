//! Config files: parses YAML and `key=value` overrides into a [`RunConfig`], or lists all problems
//! with them.

#[cfg(test)]
mod published;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod short_run;
#[cfg(test)]
mod tests;
mod text;
mod yaml;

use std::path::Path;

use augment::AugmentConfig;
use data::decode::PixelFormat;
use serde_json::{Value, json};
pub use simdino::RunConfig;
use simdino::config::{Resolved, Sizing, from_document, from_layers, problems, sizes_for};
use simdino::device;

use self::text::ConfigText;
pub use self::text::no_recipe;
pub use self::yaml::read as read_yaml;
use crate::failure::{Failure, Result};

/// Number of images that sizes are chosen for where the images are not looked at.
const ASSUMED_IMAGES: usize = 1000;

/// A config that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values, every default filled in.
    pub config: RunConfig,
    /// The file or recipe as written.
    pub text: String,
    /// What was changed to fit a short run, and which file was not read, one sentence each.
    pub notes: Vec<String>,
    /// Settings that have no effect in this run, or not the one that one expects.
    pub warnings: Vec<String>,
    /// The keys that the file and the overrides give.
    pub given: Value,
}

/// Reads a config file, or the recipe that `path` names, lays the overrides on it and checks everything.
///
/// # Errors
/// All problems at once, each a sentence that starts with its key.
pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded> {
    load_with(json!({}), path, overrides)
}

/// As [`load`], with values for the keys that neither the file nor the overrides give.
///
/// # Errors
/// As [`load`].
pub fn load_with(values: Value, path: &Path, overrides: &[String]) -> Result<Loaded> {
    let loaded = load_layers(values, path, overrides)?;
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
    load_layers(json!({}), path, overrides)
}

fn load_layers(values: Value, path: &Path, overrides: &[String]) -> Result<Loaded> {
    let ConfigText { text, shown, stem, note } = text::of(path)?;
    let unsized_yet = values.as_object().is_none_or(serde_json::Map::is_empty);
    let mut resolved = read(values, &text, &shown, overrides)?;
    if resolved.config.sizing == Sizing::Auto && unsized_yet {
        let on_gpu = device::resolve(resolved.config.run.device).is_ok_and(|found| found.is_cuda());
        let sizes = sizes_for(&resolved.given, resolved.config.method, ASSUMED_IMAGES, on_gpu, 1);
        resolved = read(sizes, &text, &shown, overrides)?;
        resolved.notes.push(format!(
            "sizing: auto: these are the sizes for {ASSUMED_IMAGES} images on {}; train chooses them \
             for the images at hand",
            if on_gpu { "a GPU" } else { "a CPU" }
        ));
    }
    let Resolved { mut config, mut notes, given } = resolved;
    config.run.name.get_or_insert(stem);
    let warnings = config.without_effect();
    notes.extend(note);
    Ok(Loaded { config, text, notes, warnings, given })
}

/// The resolved config of a run, of this version or of an earlier one.
///
/// # Errors
/// All unknown keys and values of a wrong type at once.
pub fn of_run(text: &str) -> Result<RunConfig> {
    let mut document = yaml::read(text).map_err(Failure::usage)?;
    problems::upgrade(&mut document);
    Ok(from_document(document, &[], &yaml::read)?.config)
}

/// The config of [`read`] alone.
pub fn parse(text: &str, name: &str, overrides: &[String]) -> Result<RunConfig> {
    read(json!({}), text, name, overrides).map(|resolved| resolved.config)
}

/// Reads a config from text, with `values` for what neither it nor the overrides give, and says what was
/// changed to fit a short run; `name` stands for the text in messages.
fn read(values: Value, text: &str, name: &str, overrides: &[String]) -> Result<Resolved> {
    let document =
        yaml::read(text).map_err(|sentence| Failure::usage(format!("{name}: {sentence}")))?;
    match &document {
        Value::Null => return Err(Failure::usage(format!("{name}: the config is empty"))),
        Value::Object(_) => {}
        _ => {
            let message =
                format!("{name}: expected a mapping with sections such as 'data:' and 'train:'");
            return Err(Failure::usage(message));
        }
    }
    Ok(from_layers(values, document, overrides, &yaml::read)?)
}

/// The JSON schema of a config.
pub fn json_schema() -> String {
    let schema = simdino::config::schema::json_schema::<RunConfig>();
    format!("{schema:#}\n")
}

/// A config as YAML, with every key.
///
/// # Errors
/// None in practice: every section can be written.
pub fn to_yaml(config: &RunConfig) -> Result<String> {
    yaml::write(config).map_err(Failure::failed)
}
