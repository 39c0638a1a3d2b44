//! `key.path=value` arguments, which are checked like the config itself and override it.

use objectives::SimDinoConfig;
use serde_json::{Map, Value, json};

use super::schema::{Kind, key_at};

/// Parses the `VALUE` of a `key.path=VALUE` argument; the error is a sentence.
pub type ReadValue<'a> = &'a dyn Fn(&str) -> std::result::Result<Value, String>;

/// Parses an override into a document that contains only its key. `read_value` parses values that
/// are not strings.
///
/// # Errors
/// Returns a sentence if the form is invalid or `read_value` fails. Whether the key exists is not
/// checked here.
pub fn read(root: &Kind, text: &str, read_value: ReadValue) -> Result<Value, String> {
    let Some((path, value)) = text.split_once('=') else {
        return Err(format!("override '{text}': expected key.path=value"));
    };
    let path = path.trim();
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(format!("override '{text}': '{path}' is not a valid key.path"));
    }
    // Strings are taken verbatim, so that `run.name=007` or `data.path=a: b` need no quotes.
    let value = match key_at(root, path).map(|key| &key.kind) {
        Some(Kind::Text) => Value::String(value.to_owned()),
        Some(Kind::Optional(inner)) if **inner == Kind::Text => match value {
            "" | "null" => Value::Null,
            text => Value::String(text.to_owned()),
        },
        _ => read_value(value).map_err(|e| format!("override '{text}': {e}"))?,
    };
    Ok(path.rsplit('.').fold(value, |value, key| json!({ key: value })))
}

/// Applies `over` to `under`: sections are merged, and everything else is replaced.
pub fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        // Null for a section keeps the section; null for any other value replaces it.
        (Value::Object(_), Value::Null) => {}
        (under, over) => *under = over,
    }
}

/// Applies a layer of a config to those below it with [`merge`]. If the layer gives one of two
/// mutually exclusive keys, the other one is reset.
pub fn merge_layer(under: &mut Value, mut over: Value) {
    if let Some(Value::Object(simdino)) = over.get_mut("simdino") {
        let has = |key: &str| simdino.get(key).is_some_and(|value| !value.is_null());
        match (has(GROUP_ROWS), has(RATE_GROUPS)) {
            (true, false) => {
                let usual = SimDinoConfig::default().rate_groups;
                simdino.insert(RATE_GROUPS.to_owned(), json!(usual));
            }
            (false, true) => {
                simdino.insert(GROUP_ROWS.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    merge(under, over);
}

// The two mutually exclusive keys for the groups of the coding rate.
const GROUP_ROWS: &str = "group_rows";
const RATE_GROUPS: &str = "rate_groups";

/// Returns a problem if a layer gives both of two mutually exclusive keys. The default value of
/// `rate_groups` does not count, because configs that were written with all keys contain it.
pub fn exclusive(layer: &Value) -> Option<String> {
    let given = |key: &str| layer["simdino"].get(key).filter(|value| !value.is_null());
    let usual = json!(SimDinoConfig::default().rate_groups);
    let both =
        given(GROUP_ROWS).is_some() && given(RATE_GROUPS).is_some_and(|groups| *groups != usual);
    both.then(|| {
        "simdino.group_rows and simdino.rate_groups: mutually exclusive; give only one of them"
            .to_owned()
    })
}

/// Removes null sections, which `serde` would reject as a wrong type.
pub fn drop_empty_sections(kind: &Kind, value: &mut Value) {
    let (Kind::Section(keys), Value::Object(entries)) = (kind, value) else { return };
    let kept = std::mem::take(entries).into_iter().filter_map(|(key, mut value)| {
        let inner = &keys.get(key.as_str())?.kind;
        if matches!(inner, Kind::Section(_)) && value.is_null() {
            return None;
        }
        drop_empty_sections(inner, &mut value);
        Some((key, value))
    });
    *entries = kept.collect::<Map<_, _>>();
}
