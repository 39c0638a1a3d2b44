//! Reads and writes YAML. Only this file uses the YAML library; everything else uses JSON values.

use serde::Serialize;
use serde_json::{Map, Number, Value};
use serde_yaml::Value as Yaml;

/// Parses one document.
///
/// Non-finite numbers, which JSON cannot represent, become strings, so that the type check reports
/// them.
///
/// # Errors
/// Returns a sentence, with the position in the text if it is not valid YAML.
pub fn read(text: &str) -> Result<Value, String> {
    let mut yaml: Yaml = serde_yaml::from_str(text).map_err(|e| sentence(&e))?;
    yaml.apply_merge().map_err(|e| sentence(&e))?;
    convert(yaml)
}

/// Formats a value with its keys in the order of its fields, and lists of numbers on one line.
///
/// # Errors
/// Returns an error if the value cannot be represented in YAML, which every config can.
pub fn write(value: &impl Serialize) -> Result<String, String> {
    serde_yaml::to_string(value).map(|text| number_lists_in_line(&text)).map_err(|e| sentence(&e))
}

/// Joins the lines `key:`, `- 1`, and `- 2` to `key: [1, 2]`, as a person would write it.
fn number_lists_in_line(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        written.push_str(line);
        let indent = &line[..line.len() - line.trim_start().len()];
        let item = |line: &&str| {
            let item = line.strip_prefix(indent)?.strip_prefix("- ")?;
            item.parse::<f64>().is_ok().then(|| item.to_owned())
        };
        let mut items = Vec::new();
        while line.ends_with(':')
            && let Some(found) = lines.peek().and_then(item)
        {
            items.push(found);
            lines.next();
        }
        if !items.is_empty() {
            written.push_str(&format!(" [{}]", items.join(", ")));
        }
        written.push('\n');
    }
    written
}

fn sentence(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    // The library reads integers of up to 128 bits, which fit no value.
    match text.split_once("integer `").and_then(|(_, rest)| rest.split_once("` as ")) {
        Some((integer, _)) => format!("the integer {integer} is too large"),
        None => format!("not valid YAML: {text}"),
    }
}

fn convert(yaml: Yaml) -> Result<Value, String> {
    Ok(match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(b) => Value::Bool(b),
        Yaml::String(text) => Value::String(text),
        Yaml::Number(number) => number_value(&number),
        Yaml::Sequence(items) => {
            Value::Array(items.into_iter().map(convert).collect::<Result<_, _>>()?)
        }
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                map.insert(key_text(key)?, convert(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(tagged) => {
            return Err(format!("YAML tags are not supported: {}", tagged.tag));
        }
    })
}

fn number_value(number: &serde_yaml::Number) -> Value {
    let json = (number.as_u64().map(Number::from))
        .or_else(|| number.as_i64().map(Number::from))
        .or_else(|| number.as_f64().and_then(Number::from_f64));
    json.map_or_else(|| Value::String(number.to_string()), Value::Number)
}

fn key_text(key: Yaml) -> Result<String, String> {
    match key {
        Yaml::String(text) => Ok(text),
        Yaml::Number(number) => Ok(number.to_string()),
        Yaml::Bool(b) => Ok(b.to_string()),
        _ => Err("every key must be a word".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_types() {
        let value = read("a: 5e-4\nb: [1, -2]\nc: yes\nd: .inf\ne: ~\nf: 1.0").unwrap();
        assert_eq!(
            value,
            serde_json::json!({"a": 5e-4, "b": [1, -2], "c": "yes", "d": ".inf", "e": null, "f": 1.0})
        );
    }

    #[test]
    fn an_integer_of_too_many_digits_is_called_too_large() {
        let said = read("99999999999999999999").unwrap_err();
        assert_eq!(said, "the integer 99999999999999999999 is too large");
        assert!(read("a: [1").unwrap_err().starts_with("not valid YAML: "));
    }

    #[test]
    fn merge_keys_are_applied() {
        let value = read("base: &b {x: 1}\nnext: {<<: *b, y: 2}").unwrap();
        assert_eq!(value["next"], serde_json::json!({"x": 1, "y": 2}));
    }

    #[test]
    fn lists_of_numbers_stay_on_one_line() {
        #[derive(Serialize)]
        struct Deep {
            scale: [f64; 2],
            names: [&'static str; 1],
        }
        let text = write(
            &[("a", Deep { scale: [0.5, 1.0], names: ["x"] })]
                .into_iter()
                .collect::<std::collections::BTreeMap<_, _>>(),
        )
        .unwrap();
        assert_eq!(text, "a:\n  scale: [0.5, 1.0]\n  names:\n  - x\n");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, expect) in [
            ("a: 1\nb: [1, 2\nc: 3", "line"),
            ("train:\n  epochs: 1\n  epochs: 2", "epochs"),
            ("a: !x 1", "tag"),
            ("[1]: 2", "must be a word"),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(expect), "{text}: {message}");
        }
    }
}
