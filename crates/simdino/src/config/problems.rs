//! Finds all problems with the keys and types of a config in one traversal, and describes them in
//! sentences.

use std::collections::BTreeMap;

use serde_json::Value;

use super::schema::{Key, Kind, Word, join, leaves};

/// Sections and keys of earlier versions, and their current names.
const RENAMED: [(&str, &str); 7] = [
    ("objective", "simdino"),
    ("prototypes", "dino"),
    ("terms.patch_weight", "ibot.loss_weight"),
    ("terms.koleo_weight", "koleo.loss_weight"),
    ("terms.koleo_groups", "koleo.groups"),
    ("optim.rule", "optim.optimizer"),
    ("optim.trust", "optim.trust_coefficient"),
];

/// Keys for which 0 or an empty string once had a special meaning, which null has now, and that
/// meaning.
const NULL_NOW: [(&str, &str); 16] = [
    ("run.name", "the name of the config file"),
    ("run.threads", "one thread per core"),
    ("data.path", "no path"),
    ("data.workers", "one thread per core but one"),
    ("data.spill_dir", "the system's temporary folder"),
    ("init.from", "fresh weights"),
    ("model.checkpoint_blocks", "keeping all activations"),
    ("optim.clip_grad", "no clipping"),
    ("train.stop_after", "all steps"),
    ("train.checkpoint_every", "one per epoch"),
    ("probe.train_path", "no probe"),
    ("probe.test_path", "no probe"),
    ("probe.every_epochs", "only one at the end"),
    ("probe.max_train", "all images"),
    ("probe.max_test", "all images"),
    ("probe.resize", "8/7 of the crop"),
];

/// Maximum number of characters of a value that a message quotes.
const QUOTED: usize = 60;

/// Returns a sentence for each unknown key and each value of a wrong type in `value`.
pub fn find(root: &Kind, value: &Value) -> Vec<String> {
    let mut walk = Walk { root, problems: Vec::new() };
    walk.check(root, "", value);
    walk.problems
}

/// Describes the values that a key accepts: `an integer`, `one of fp32, bf16`.
pub fn expectation(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Whole { .. } => "an integer".into(),
        Kind::Number => "a number".into(),
        Kind::Text => "a string".into(),
        Kind::Words(words) => format!("one of {}", listed(words)),
        Kind::Numbered(front) => format!("{front}N"),
        Kind::List(inner, Some(len)) => format!("a list of {len} {}", plural(inner)),
        Kind::List(inner, None) => format!("a list of {}", plural(inner)),
        Kind::Optional(inner) => match &**inner {
            Kind::Either(kinds) => either(kinds, Some("null")),
            inner => format!("{} or null", expectation(inner)),
        },
        Kind::Section(_) => "a mapping".into(),
        Kind::Either(kinds) => either(kinds, None),
    }
}

fn listed(words: &[Word]) -> String {
    words.iter().map(|word| word.word.as_str()).collect::<Vec<_>>().join(", ")
}

/// Lists alternatives, and `last` after them.
fn either(kinds: &[Kind], last: Option<&str>) -> String {
    let parts = kinds.iter().map(|kind| match kind {
        Kind::Words(words) => listed(words),
        kind => expectation(kind),
    });
    let parts: Vec<String> = parts.chain(last.map(str::to_owned)).collect();
    match parts.split_last() {
        Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => parts.concat(),
    }
}

fn plural(kind: &Kind) -> String {
    match kind {
        Kind::Number => "numbers".into(),
        Kind::Whole { .. } => "integers".into(),
        Kind::Text => "strings".into(),
        Kind::Section(_) => "mappings".into(),
        Kind::List(inner, Some(len)) => format!("lists of {len} {}", plural(inner)),
        _ => "values".into(),
    }
}

struct Walk<'a> {
    root: &'a Kind,
    problems: Vec<String>,
}

impl Walk<'_> {
    fn check(&mut self, kind: &Kind, path: &str, value: &Value) {
        if let Some(problem) = null_now(path, value) {
            return self.problems.push(problem);
        }
        match (kind, value) {
            (Kind::Section(keys), Value::Object(entries)) => {
                for (key, value) in entries {
                    let path = join(path, key);
                    match keys.get(key.as_str()) {
                        Some(key) => self.check(&key.kind, &path, value),
                        None => self.problems.extend(unknown(self.root, keys, &path, value)),
                    }
                }
            }
            // A null section keeps its defaults.
            (Kind::Section(_), Value::Null)
            | (Kind::Optional(_), Value::Null)
            | (Kind::Bool, Value::Bool(_))
            | (Kind::Number, Value::Number(_))
            | (Kind::Text, Value::String(_)) => {}
            (Kind::Optional(inner), value) => self.check(inner, path, value),
            (Kind::Words(words), Value::String(text))
                if words.iter().any(|word| word.word == *text) => {}
            (Kind::Numbered(front), Value::String(text)) if is_numbered(front, text) => {}
            (Kind::Either(kinds), value) if kinds.iter().any(|kind| fits(kind, value)) => {}
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
            _ => self.mismatch(kind, path, value),
        }
    }

    fn mismatch(&mut self, kind: &Kind, path: &str, value: &Value) {
        let place = if path.is_empty() { "the config" } else { path };
        let mut problem = format!("{place}: expected {}, got {}", expectation(kind), show(value));
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
        self.problems.push(format!("{path}: expected an integer {range}, got {}", show(value)));
    }
}

/// Replaces 0 or an empty string with null where an earlier version used it with that meaning. This
/// is for resolved configs of runs, which are not written by hand.
pub fn upgrade(document: &mut Value) {
    for (key, _) in NULL_NOW {
        let pointer = format!("/{}", key.replace('.', "/"));
        if let Some(value) = document.pointer_mut(&pointer).filter(|value| is_nothing(value)) {
            *value = Value::Null;
        }
    }
}

/// Returns whether this is a value that earlier versions used in place of null.
fn is_nothing(value: &Value) -> bool {
    value.as_f64() == Some(0.0) || value.as_str() == Some("")
}

/// Returns a problem if earlier versions used this value in place of null for this key.
fn null_now(path: &str, value: &Value) -> Option<String> {
    let (_, meaning) = NULL_NOW.iter().find(|(key, _)| *key == path && is_nothing(value))?;
    Some(format!("{path}: {} is no longer accepted: write null for {meaning}", show(value)))
}

/// Returns whether a value is of a kind.
fn fits(kind: &Kind, value: &Value) -> bool {
    find(kind, value).is_empty()
}

/// Returns whether `text` is `front` followed by one to four digits.
fn is_numbered(front: &str, text: &str) -> bool {
    let digits = text.strip_prefix(front).unwrap_or_default();
    (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Formats a value for a message.
fn show(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".into(),
        Value::String(text) => format!("'{text}'"),
        Value::Object(_) => "a mapping".into(),
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
    siblings: &BTreeMap<String, Key>,
    path: &str,
    value: &Value,
) -> Vec<String> {
    if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == path) {
        return vec![format!("unknown key '{path}': it is now called '{new}'")];
    }
    // The keys of a former section may have moved to several others.
    let inside = format!("{path}.");
    let moved = RENAMED.iter().filter(|(old, _)| old.starts_with(&inside));
    let given = |old: &str| value.get(&old[inside.len()..]).is_some();
    let moved: Vec<String> = moved
        .filter(|(old, _)| given(old))
        .map(|(old, new)| format!("unknown key '{old}': it is now called '{new}'"))
        .collect();
    if moved.is_empty() { vec![unknown_key(root, siblings, path)] } else { moved }
}

fn unknown_key(root: &Kind, siblings: &BTreeMap<String, Key>, path: &str) -> String {
    let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
    match nearest(root, siblings, section, key) {
        Some(nearest) => format!("unknown key '{path}': did you mean '{nearest}'?"),
        None => {
            let keys: Vec<&str> = siblings.keys().map(String::as_str).collect();
            let place = if section.is_empty() { "the sections and keys" } else { "the keys here" };
            format!("unknown key '{path}': {place} are {}", keys.join(", "))
        }
    }
}

/// Returns the key that was probably meant: one of the same section with similar spelling, or else
/// one of another section with exactly this name, or else one there with similar spelling.
fn nearest(
    root: &Kind,
    siblings: &BTreeMap<String, Key>,
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
    let everywhere: Vec<String> = leaves(root).into_iter().map(|(path, _)| path).collect();
    closest(&here, &last).or_else(|| closest(&everywhere, &last))
}
