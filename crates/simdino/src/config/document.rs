//! Converts the contents of a config file to a [`RunConfig`].

use augment::{AugmentConfig, Preset};
use serde_json::{Value, json};

use super::overrides::ReadValue;
use super::{RunConfig, length, overrides, problems, schema};
use crate::error::{Error, Result};

/// A config with all defaults filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The complete config.
    pub config: RunConfig,
    /// Changes that were made to fit a short run, one sentence each.
    pub notes: Vec<String>,
    /// The values that the document and the overrides give.
    pub given: Value,
}

/// Applies the keys of a document, and then the `key.path=value` overrides, to the recipe of the
/// method that they name. Only the types of values are checked; [`RunConfig::validate`] checks the
/// values themselves.
///
/// # Errors
/// Returns [`Error::Config`] with all unknown keys and all values of a wrong type.
pub fn from_document(
    document: Value,
    overrides: &[String],
    read_value: ReadValue,
) -> Result<Resolved> {
    from_layers(json!({}), document, overrides, read_value)
}

/// Same as [`from_document`], with `values` for keys that neither the document nor the overrides
/// give.
///
/// # Errors
/// Same as [`from_document`].
pub fn from_layers(
    values: Value,
    document: Value,
    overrides: &[String],
    read_value: ReadValue,
) -> Result<Resolved> {
    let shape = schema::of::<RunConfig>()?;
    let mut problems = problems::find(&shape, &document);
    problems.extend(overrides::exclusive(&document));
    let mut layer = json!({});
    overrides::merge_layer(&mut layer, document);
    let mut document = layer;
    // `values` belong to the layer of the file, so overrides that shorten the run scale them, too.
    let mut file = values.clone();
    overrides::merge_layer(&mut file, document.clone());
    let (mut above, mut all) = (json!({}), json!({}));
    for text in overrides {
        match overrides::read(&shape, text, read_value) {
            Ok(over) => {
                problems.extend(problems::find(&shape, &over));
                overrides::merge(&mut all, over.clone());
                overrides::merge_layer(&mut above, over.clone());
                overrides::merge_layer(&mut document, over);
            }
            Err(problem) => problems.push(problem),
        }
    }
    problems.extend(overrides::exclusive(&all));
    if !problems.is_empty() {
        problems.dedup();
        return Err(Error::Config(problems));
    }
    overrides::drop_empty_sections(&shape, &mut document);
    let recipe = recipe_of(&document)?;
    let mut config = recipe.clone();
    overrides::merge_layer(&mut config, values);
    overrides::merge_layer(&mut config, document.clone());
    let mut config: RunConfig =
        serde_json::from_value(config).map_err(|e| Error::Config(vec![e.to_string()]))?;
    config.data.channels = usize::try_from(config.model.in_channels).unwrap_or_default();
    let shortened = length::shorten(&mut config, &[&recipe, &file, &above]);
    Ok(Resolved { config, notes: shortened.into_iter().collect(), given: document })
}

/// Returns the base of the document's keys: the recipe of its method, with the augmentation of its
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
