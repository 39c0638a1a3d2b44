//! Finds all problems with the keys and types of a config in one traversal, and describes them in
//! sentences.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::Kind;

/// Expected values of keys whose kind depends on the value.
const OPEN: [(&str, &str); 1] = [("simdino.gamma", "code, theorem, ceiling, balanced or a number")];

/// Sections and keys of earlier versions, with their current names.
const RENAMED: [(&str, &str); 7] = [
    ("objective", "simdino"),
    ("prototypes", "dino"),
    ("terms.patch_weight", "ibot.loss_weight"),
    ("terms.koleo_weight", "koleo.loss_weight"),
    ("terms.koleo_groups", "koleo.groups"),
    ("optim.rule", "optim.optimizer"),
    ("optim.trust", "optim.trust_coefficient"),
];

/// Longest value that a message quotes, in characters.
const QUOTED: usize = 60;

/// Returns unknown keys and values of a wrong type in `value`.
///
/// `accepts` decides whether a key of [`Kind::Open`] accepts a value.
pub fn find(root: &Kind, value: &Value, accepts: &dyn Fn(&str, &Value) -> bool) -> Vec<String> {
    let mut walk = Walk { root, accepts, problems: Vec::new() };
    walk.check(root, "", value);
    walk.problems
}

/// Describes the values that a key accepts: `a whole number`, `one of fp32, bf16`.
pub fn expectation(kind: &Kind, path: &str) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Whole { .. } => "a whole number".into(),
        Kind::Number => "a number".into(),
        Kind::Text => "text".into(),
        Kind::Words([word]) => format!("'{word}', the only choice so far"),
        Kind::Words(words) => format!("one of {}", words.join(", ")),
        Kind::List(inner, Some(len)) => format!("a list of {len} {}", plural(inner)),
        Kind::List(inner, None) => format!("a list of {}", plural(inner)),
        Kind::Optional(inner) => format!("{} or null", expectation(inner, path)),
        Kind::Section(_) => "a section of keys".into(),
        Kind::Open => OPEN
            .iter()
            .find(|(key, _)| *key == path)
            .map_or_else(|| "another value".into(), |(_, words)| (*words).to_owned()),
    }
}

fn plural(kind: &Kind) -> &'static str {
    match kind {
        Kind::Number => "numbers",
        Kind::Whole { .. } => "whole numbers",
        Kind::Text => "texts",
        _ => "values",
    }
}

/// Returns the kind at a dotted path; `None` if there is no such key.
pub fn kind_at<'a>(root: &'a Kind, path: &str) -> Option<&'a Kind> {
    path.split('.').try_fold(root, |kind, key| match kind {
        Kind::Section(keys) => keys.get(key),
        _ => None,
    })
}

struct Walk<'a> {
    root: &'a Kind,
    accepts: &'a dyn Fn(&str, &Value) -> bool,
    problems: Vec<String>,
}

impl Walk<'_> {
    fn check(&mut self, kind: &Kind, path: &str, value: &Value) {
        match (kind, value) {
            (Kind::Section(keys), Value::Object(entries)) => {
                for (key, value) in entries {
                    let path = join(path, key);
                    match keys.get(key.as_str()) {
                        Some(kind) => self.check(kind, &path, value),
                        None => self.problems.extend(unknown(self.root, keys, &path, value)),
                    }
                }
            }
            // A section with nothing under it keeps its defaults.
            (Kind::Section(_), Value::Null)
            | (Kind::Optional(_), Value::Null)
            | (Kind::Bool, Value::Bool(_))
            | (Kind::Number, Value::Number(_))
            | (Kind::Text, Value::String(_)) => {}
            (Kind::Optional(inner), value) => self.check(inner, path, value),
            (Kind::Words(words), Value::String(word)) if words.contains(&word.as_str()) => {}
            (Kind::List(inner, len), Value::Array(items))
                if len.is_none_or(|len| len == items.len()) =>
            {
                for (i, item) in items.iter().enumerate() {
                    self.check(inner, &format!("{path}[{i}]"), item);
                }
            }
            (Kind::Whole { min, max }, Value::Number(number)) => {
                match number.as_i64().map(i128::from).or(number.as_u64().map(i128::from)) {
                    Some(n) if (*min..=*max).contains(&n) => {}
                    Some(_) => self.out_of_range(path, (*min, *max), value),
                    None => self.mismatch(kind, path, value),
                }
            }
            (Kind::Open, value) if (self.accepts)(path, value) => {}
            _ => self.mismatch(kind, path, value),
        }
    }

    fn mismatch(&mut self, kind: &Kind, path: &str, value: &Value) {
        let place = if path.is_empty() { "the config" } else { path };
        let mut problem =
            format!("{place}: expected {}, got {}", expectation(kind, path), show(value));
        if matches!((kind, value), (Kind::Text, Value::Number(_) | Value::Bool(_))) {
            problem.push_str(" (put it in quotes)");
        }
        self.problems.push(problem);
    }

    fn out_of_range(&mut self, path: &str, (min, max): (i128, i128), value: &Value) {
        let range = if max < i128::from(u32::MAX) {
            format!("from {min} to {max}")
        } else {
            format!("of at least {min}")
        };
        self.problems.push(format!("{path}: expected a whole number {range}, got {}", show(value)));
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Formats a value for a message.
fn show(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".into(),
        Value::String(text) => format!("'{text}'"),
        Value::Object(_) => "a section of keys".into(),
        other => other.to_string(),
    };
    if text.chars().count() <= QUOTED {
        return text;
    }
    text.chars().take(QUOTED).chain("...".chars()).collect()
}

/// Describes a key that no section has: the current name of a renamed key, or else the key that
/// was probably meant.
fn unknown(
    root: &Kind,
    siblings: &BTreeMap<&'static str, Kind>,
    path: &str,
    value: &Value,
) -> Vec<String> {
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == path) {
        return vec![format!("unknown key '{path}': it is now called '{new}'")];
    }
    // A section whose keys went to several others.
    let inside = format!("{path}.");
    let moved = RENAMED.iter().filter(|(old, _)| old.starts_with(&inside));
    let given = |old: &str| value.get(&old[inside.len()..]).is_some();
    let moved: Vec<String> = moved
        .filter(|(old, _)| given(old))
        .map(|(old, new)| format!("unknown key '{old}': it is now called '{new}'"))
        .collect();
    if moved.is_empty() { vec![unknown_key(root, siblings, path)] } else { moved }
}

fn unknown_key(root: &Kind, siblings: &BTreeMap<&'static str, Kind>, path: &str) -> String {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    match nearest(root, siblings, section, key) {
        Some(nearest) => format!("unknown key '{path}': did you mean '{nearest}'?"),
        None => {
            let keys: Vec<&str> = siblings.keys().copied().collect();
            let place = if section.is_empty() { "the sections" } else { "the keys here" };
            format!("unknown key '{path}': {place} are {}", keys.join(", "))
        }
    }
}

/// Returns the key that was probably meant: one of the same section with similar spelling, or else
/// one of another section with exactly this name, or else one there with similar spelling.
fn nearest(
    root: &Kind,
    siblings: &BTreeMap<&'static str, Kind>,
    section: &str,
    key: &str,
) -> Option<String> {
    let closest = |names: &[String], name: &dyn Fn(&str) -> String| {
        names
            .iter()
            .map(|candidate| (strsim::damerau_levenshtein(&name(candidate), key), candidate))
            .filter(|(distance, _)| *distance <= (key.chars().count() / 3).max(1))
            .min_by_key(|(distance, _)| *distance)
            .map(|(_, candidate)| candidate.clone())
    };
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let here: Vec<String> = siblings.keys().map(|name| join(section, name)).collect();
    let mut everywhere = Vec::new();
    leaves(root, "", &mut everywhere);
    closest(&here, &last).or_else(|| closest(&everywhere, &last))
}

/// Returns every key that is not a section, as a dotted path.
pub fn leaves(kind: &Kind, path: &str, found: &mut Vec<String>) {
    match kind {
        Kind::Section(keys) => {
            for (key, kind) in keys {
                leaves(kind, &join(path, key), found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}
