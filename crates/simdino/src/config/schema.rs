//! The schema of a config type, which `schemars` derives from the structs. It is available as a
//! JSON schema for editors ([`json_schema`]), and as a tree of [`Key`]s ([`of`]), on which the
//! checks of a config, its reference page, and the rules for resuming are based.
//!
//! The tree is built from the JSON schema, and a keyword that this module does not know is an
//! error. Editors and this program therefore apply the same schema.

use std::collections::BTreeMap;

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Schema keyword that marks a key that may change when a run is resumed.
const ON_RESUME: &str = "x-on-resume";

/// A key of a config.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// The values that the key accepts.
    pub kind: Kind,
    /// Its description, on one line.
    pub doc: String,
    /// Its default value; null for a section.
    pub default: Value,
    /// Whether it may change when a run is resumed, because the result does not depend on it.
    pub may_change_on_resume: bool,
}

/// A word that a key accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The word.
    pub word: String,
    /// Its description, on one line; empty if the word is self-explanatory.
    pub doc: String,
}

/// The values that a key accepts.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// An integer from `min` to `max`.
    Whole {
        /// Smallest value.
        min: i128,
        /// Largest value.
        max: i128,
    },
    /// Any finite number.
    Number,
    /// A string.
    Text,
    /// One of these words.
    Words(Vec<Word>),
    /// This prefix followed by a number of up to four digits, such as `cuda:1`.
    Numbered(String),
    /// A list of values of this kind, with this number of elements if the type fixes it.
    List(Box<Kind>, Option<usize>),
    /// A value of this kind, or null.
    Optional(Box<Kind>),
    /// A mapping with these keys.
    Section(BTreeMap<String, Key>),
    /// One of several kinds, such as a word or a number.
    Either(Vec<Kind>),
}

/// A schema that this module cannot read, which is a bug in this project.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the schema of a config type: {0}")]
pub struct Unsupported(String);

/// Returns the JSON schema (draft 7) of a config type. All subschemas are inlined, because editors
/// support that best.
pub fn json_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let settings = settings.with_transform(RecursiveTransform(tidy));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    schema.insert("type".into(), "object".into()); // a whole config is never empty
    schema.to_value()
}

/// Returns the keys of a config type.
///
/// # Errors
/// Returns an error if the type contains something that this module does not support, such as a
/// map.
pub fn of<T: JsonSchema>() -> Result<Kind, Unsupported> {
    kind_of(&json_schema::<T>())
}

/// Returns the key at a dotted path; `None` if there is no such key.
pub fn key_at<'a>(root: &'a Kind, path: &str) -> Option<&'a Key> {
    let (section, name) = match path.rsplit_once('.') {
        Some((section, name)) => (&key_at(root, section)?.kind, name),
        None => (root, path),
    };
    match section {
        Kind::Section(keys) => keys.get(name),
        _ => None,
    }
}

/// Returns every key that is not a section, with its dotted path.
pub fn leaves(root: &Kind) -> Vec<(String, &Key)> {
    let Kind::Section(keys) = root else { return Vec::new() };
    let below = keys.iter().flat_map(|(name, key)| match &key.kind {
        Kind::Section(_) => {
            leaves(&key.kind).into_iter().map(|(path, key)| (join(name, &path), key)).collect()
        }
        _ => vec![(name.clone(), key)],
    });
    below.collect()
}

/// Returns the words that a kind accepts.
pub fn words(kind: &Kind) -> &[Word] {
    match kind {
        Kind::Words(words) => words,
        Kind::Optional(inner) => words(inner),
        Kind::Either(kinds) => kinds.first().map_or(&[], words),
        _ => &[],
    }
}

/// Joins a section and a key to a dotted path.
pub(super) fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Puts each description on one line, allows null for sections, and removes the defaults of
/// sections, which their keys state.
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if schema.get("properties").is_some() {
        schema.insert("type".into(), json!(["object", "null"]));
        schema.remove("default");
    }
}

/// Schema keywords that do not restrict the accepted values.
const WORDS_ABOUT: [&str; 5] = ["$schema", "title", "description", "default", ON_RESUME];

/// The keywords of one schema; each must be used.
struct Keywords<'a>(&'a Map<String, Value>);

impl<'a> Keywords<'a> {
    fn of(schema: &'a Value) -> Result<Self, Unsupported> {
        let map = schema.as_object().ok_or_else(|| Unsupported(schema.to_string()))?;
        Ok(Self(map))
    }

    /// Returns an error for any keyword except `known` and those of [`WORDS_ABOUT`].
    fn only(&self, known: &[&str]) -> Result<(), Unsupported> {
        let other =
            |key: &&String| !known.contains(&key.as_str()) && !WORDS_ABOUT.contains(&key.as_str());
        match self.0.keys().find(other) {
            Some(key) => Err(Unsupported(format!("the keyword '{key}' is unknown"))),
            None => Ok(()),
        }
    }

    fn text(&self, keyword: &str) -> &'a str {
        self.0.get(keyword).and_then(Value::as_str).unwrap_or_default()
    }

    fn list(&self, keyword: &str) -> &'a [Value] {
        self.0.get(keyword).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Returns the accepted types.
    fn types(&self) -> Vec<&'a str> {
        match self.0.get("type") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

fn kind_of(schema: &Value) -> Result<Kind, Unsupported> {
    let keywords = Keywords::of(schema)?;
    for several in ["oneOf", "anyOf"] {
        if keywords.0.contains_key(several) {
            keywords.only(&[several])?;
            return either(keywords.list(several));
        }
    }
    let types = keywords.types();
    if let ["object"] | ["object", "null"] = types[..] {
        return section(&keywords);
    }
    let others: Vec<&str> = types.iter().copied().filter(|&name| name != "null").collect();
    let kind = match others[..] {
        ["boolean"] => keywords.only(&["type"]).map(|()| Kind::Bool),
        ["integer"] => whole(&keywords),
        ["number"] => keywords.only(&["type", "format"]).map(|()| Kind::Number),
        ["string"] => text(&keywords),
        ["array"] => list(&keywords),
        _ => Err(Unsupported(schema.to_string())),
    }?;
    Ok(if others.len() < types.len() { Kind::Optional(kind.into()) } else { kind })
}

/// Combines alternatives: all words become one kind, and null makes the others optional.
fn either(alternatives: &[Value]) -> Result<Kind, Unsupported> {
    let (mut words, mut kinds, mut optional) = (Vec::new(), Vec::new(), false);
    for alternative in alternatives {
        if Keywords::of(alternative)?.types() == ["null"] {
            optional = true;
            continue;
        }
        match kind_of(alternative)? {
            Kind::Words(more) => words.extend(more),
            kind => kinds.push(kind),
        }
    }
    if !words.is_empty() {
        kinds.insert(0, Kind::Words(words));
    }
    let kind = match kinds.len() {
        1 => kinds.remove(0),
        _ => Kind::Either(kinds),
    };
    Ok(if optional { Kind::Optional(kind.into()) } else { kind })
}

fn section(keywords: &Keywords<'_>) -> Result<Kind, Unsupported> {
    keywords.only(&["type", "properties", "additionalProperties"])?;
    if keywords.0.get("additionalProperties") != Some(&Value::Bool(false)) {
        return Err(Unsupported("a section must refuse unknown keys".into()));
    }
    let properties = keywords.0.get("properties").and_then(Value::as_object);
    let keys = properties.into_iter().flatten().map(|(name, schema)| {
        let about = Keywords::of(schema)?;
        let mut key = Key {
            kind: kind_of(schema)?,
            doc: about.text("description").to_owned(),
            default: about.0.get("default").cloned().unwrap_or_default(),
            may_change_on_resume: about.0.contains_key(ON_RESUME),
        };
        if key.may_change_on_resume {
            mark_all(&mut key.kind);
        }
        Ok((name.clone(), key))
    });
    keys.collect::<Result<_, _>>().map(Kind::Section)
}

/// Marks all keys inside a section or list as allowed to change on resume.
fn mark_all(kind: &mut Kind) {
    match kind {
        Kind::Section(keys) => keys.values_mut().for_each(|key| {
            key.may_change_on_resume = true;
            mark_all(&mut key.kind);
        }),
        Kind::List(inner, _) | Kind::Optional(inner) => mark_all(inner),
        _ => {}
    }
}

fn whole(keywords: &Keywords<'_>) -> Result<Kind, Unsupported> {
    keywords.only(&["type", "format", "minimum", "maximum"])?;
    let (min, max): (i128, i128) = match keywords.text("format") {
        "uint8" => (0, u8::MAX.into()),
        "uint16" => (0, u16::MAX.into()),
        "uint32" => (0, u32::MAX.into()),
        "uint64" | "uint" => (0, u64::MAX.into()),
        "int64" => (i64::MIN.into(), i64::MAX.into()),
        other => return Err(Unsupported(format!("the format '{other}' is unknown"))),
    };
    let bound = |keyword| keywords.0.get(keyword).and_then(Value::as_i64).map(i128::from);
    let (min, max) = (bound("minimum").unwrap_or(min), bound("maximum").unwrap_or(max));
    Ok(Kind::Whole { min, max })
}

/// Reads a string schema: any string, words, or a prefix with a number.
fn text(keywords: &Keywords<'_>) -> Result<Kind, Unsupported> {
    keywords.only(&["type", "const", "enum", "pattern"])?;
    let constant = keywords.0.get("const").and_then(Value::as_str);
    let word = |word: &str, doc: &str| Word { word: word.to_owned(), doc: doc.to_owned() };
    if let Some(constant) = constant {
        return Ok(Kind::Words(vec![word(constant, keywords.text("description"))]));
    }
    if keywords.0.contains_key("enum") {
        let words = keywords.list("enum").iter().filter_map(Value::as_str);
        return Ok(Kind::Words(words.map(|text| word(text, "")).collect()));
    }
    if keywords.0.contains_key("pattern") {
        let pattern = keywords.text("pattern");
        let front = pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix("[0-9]{1,4}$"));
        let front = front.ok_or_else(|| Unsupported(format!("the pattern {pattern}")))?;
        return Ok(Kind::Numbered(front.to_owned()));
    }
    Ok(Kind::Text)
}

fn list(keywords: &Keywords<'_>) -> Result<Kind, Unsupported> {
    keywords.only(&["type", "items", "minItems", "maxItems"])?;
    let items = keywords.0.get("items").ok_or_else(|| Unsupported("a list of anything".into()))?;
    let bound = |keyword| keywords.0.get(keyword).and_then(Value::as_u64);
    let len = match (bound("minItems"), bound("maxItems")) {
        (None, None) => None,
        (Some(min), Some(max)) if min == max => usize::try_from(max).ok(),
        _ => return Err(Unsupported("a list of a length in a range".into())),
    };
    Ok(Kind::List(kind_of(items)?.into(), len))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RunConfig;

    #[test]
    fn a_keyword_that_is_not_understood_is_refused() {
        for (schema, named) in [
            (json!({"type": "number", "multipleOf": 2}), "multipleOf"),
            (json!({"type": "object", "properties": {}}), "unknown keys"),
            (json!({"type": "string", "pattern": "a|b"}), "a|b"),
            (json!({"type": "integer", "format": "int128"}), "int128"),
            (json!({"type": "array", "items": true, "maxItems": 2}), "length"),
            (json!({"type": "array"}), "list of anything"),
            (json!({"$ref": "#/definitions/Other"}), "$ref"),
        ] {
            let error = kind_of(&schema).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        assert_eq!(
            kind_of(&json!({"type": ["integer", "null"], "format": "uint32", "minimum": 1}))
                .unwrap(),
            Kind::Optional(Box::new(Kind::Whole { min: 1, max: u32::MAX.into() }))
        );
    }

    #[test]
    fn every_key_and_every_word_is_explained() {
        let root = of::<RunConfig>().unwrap();
        for (path, key) in leaves(&root) {
            assert!(!key.doc.is_empty() && !key.doc.contains("[`"), "{path}: {}", key.doc);
            assert_eq!(key_at(&root, &path), Some(key));
        }
        let gamma = &key_at(&root, "simdino.gamma").unwrap().kind;
        let Kind::Either(kinds) = gamma else { panic!("{gamma:?}") };
        let [Kind::Words(words), Kind::Number] = &kinds[..] else { panic!("{kinds:?}") };
        assert!(words.len() == 4 && words.iter().all(|word| !word.doc.is_empty()), "{words:?}");
    }
}
