//! Config files: parses YAML and `key=value` overrides into a [`RunConfig`], or lists all their
//! problems.

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

use serde_json::{Value, json};
pub use simdino::RunConfig;
use simdino::config::{Resolved, Sizing, from_document, from_layers, problems, sizes_for};
use simdino::device;

use self::text::ConfigText;
pub use self::text::no_recipe;
pub use self::yaml::read as read_yaml;
use crate::failure::{Failure, Result};

/// Number of images that `sizing: auto` assumes if the images are not opened.
const ASSUMED_IMAGES: usize = 1000;

/// A config with its source text and messages. [`load`] returns one that has passed every check.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The values, with all defaults filled in.
    pub config: RunConfig,
    /// The text of the file or recipe.
    pub text: String,
    /// One sentence for each adjustment, such as for a short run, and for a file that was not read.
    pub notes: Vec<String>,
    /// One sentence for each setting that has no effect or an unexpected one.
    pub warnings: Vec<String>,
    /// The values that the file and the overrides give.
    pub given: Value,
}

/// Reads a config file, or the recipe that `path` names, applies the overrides, and checks
/// everything.
///
/// # Errors
/// Returns all problems at once, each a sentence that starts with its key.
pub fn load(path: &Path, overrides: &[String]) -> Result<Loaded> {
    load_with(json!({}), path, overrides)
}

/// Like [`load`], with `values` for the keys that neither the file nor the overrides give.
///
/// # Errors
/// Same as for [`load`].
pub fn load_with(values: Value, path: &Path, overrides: &[String]) -> Result<Loaded> {
    let loaded = load_layers(values, path, overrides)?;
    let problems = loaded.config.validate();
    if problems.is_empty() { Ok(loaded) } else { Err(Failure::problems(problems)) }
}

/// Reads a config file, or the defaults, and checks only its `augment` section.
///
/// # Errors
/// Returns an error if the file cannot be read or a value of the section is invalid.
pub fn for_crops(path: Option<&Path>, overrides: &[String]) -> Result<RunConfig> {
    let config = match path {
        Some(file) => load_unchecked(file, overrides)?.config,
        None => parse("{}", "the command line", overrides)?,
    };
    let RunConfig { augment, data, .. } = &config;
    let unfit = augment.validate_channels(data.channels);
    let problems = augment.validate().into_iter().chain(unfit);
    let problems: Vec<_> = problems.map(|(key, what)| format!("augment.{key}: {what}")).collect();
    if problems.is_empty() { Ok(config) } else { Err(Failure::problems(problems)) }
}

/// Like [`load`], but checks only keys and types, not the meaning of values.
///
/// # Errors
/// Returns all unknown keys and values of a wrong type at once.
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
            "sizing: auto: these are the sizes for {ASSUMED_IMAGES} images on {}; `simdino train` \
             chooses them for the actual images",
            if on_gpu { "a GPU" } else { "a CPU" }
        ));
    }
    let Resolved { mut config, mut notes, given } = resolved;
    config.run.name.get_or_insert(stem);
    let warnings = config.without_effect();
    notes.extend(note);
    Ok(Loaded { config, text, notes, warnings, given })
}

/// Parses the resolved config of a run, which may be from an earlier version.
///
/// # Errors
/// Returns all unknown keys and values of a wrong type at once.
pub fn of_run(text: &str) -> Result<RunConfig> {
    let mut document = yaml::read(text).map_err(Failure::usage)?;
    problems::upgrade(&mut document);
    Ok(from_document(document, &[], &yaml::read)?.config)
}

/// Parses a config; `name` stands for the text in messages.
///
/// # Errors
/// Returns all unknown keys and values of a wrong type at once.
pub fn parse(text: &str, name: &str, overrides: &[String]) -> Result<RunConfig> {
    read(json!({}), text, name, overrides).map(|resolved| resolved.config)
}

/// Parses a config, with `values` for the keys that neither the text nor the overrides give. The
/// notes of the result say what was adjusted for a short run; `name` stands for the text in
/// messages.
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

/// Returns the JSON schema of a config.
pub fn json_schema() -> String {
    let schema = simdino::config::schema::json_schema::<RunConfig>();
    format!("{schema:#}\n")
}

/// Formats a config as YAML, with every key.
///
/// # Errors
/// Never fails in practice: every section is serializable.
pub fn to_yaml(config: &RunConfig) -> Result<String> {
    yaml::write(config).map_err(Failure::failed)
}
