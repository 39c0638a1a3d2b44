//! Parses a line of a `.jsonl` list.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use super::super::labels::of_json;
use super::columns;

/// The contents of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) file: String,
    /// The label, or the reason why it cannot be read.
    pub(super) label: Result<Option<String>, String>,
    /// All keys, and the index of the one that contains the path.
    pub(super) keys: Vec<String>,
    pub(super) path: usize,
}

/// Returns the path and the label of a line, or the reason why it has no path.
///
/// A line may also contain the extensions of JSON that Python writes (`NaN`, `Infinity`, and
/// unpaired surrogates). Its path is then read, but its label is not, because a label requires
/// strict JSON.
pub(super) fn row(line: &str) -> Result<Row, String> {
    let strict = serde_json::from_str(line);
    let why = strict.as_ref().err().map(|error: &serde_json::Error| error.to_string());
    let object: BTreeMap<String, Value> = match strict {
        Ok(object) => object,
        Err(error) => {
            serde_json::from_str(&mend(line)).map_err(|_| format!("not a JSON object: {error}"))?
        }
    };
    let names: Vec<&str> = object.keys().map(String::as_str).collect();
    let file = |place: usize| path_of(object.get(names[place])?).map(|file| (place, file));
    let Some((path, file)) = columns::paths(&names).find_map(file) else {
        return Err(format!(
            "no \"path\" or \"file_name\" with a string value among the keys {}",
            names.join(", ")
        ));
    };
    let label = match (why, columns::label(&names).and_then(|at| object.get(names[at]))) {
        (Some(why), Some(_)) => Err(format!("the line is not strict JSON: {why}")),
        (None, Some(value)) => of_json(value),
        (_, None) => Ok(None),
    };
    Ok(Row { path, file: file.to_owned(), label, keys: object.keys().cloned().collect() })
}

/// Returns the path in a value, which is either a string or an object as the `datasets` library
/// writes it for images.
fn path_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("path")?.as_str()).filter(|path| !path.is_empty())
}

/// Replaces the non-finite numbers that Python writes with null, and unpaired surrogates with the
/// replacement character. Strings are otherwise unchanged.
fn mend(line: &str) -> Cow<'_, str> {
    const BEYOND: [&str; 3] = ["NaN", "-Infinity", "Infinity"];
    let (mut out, mut rest, mut in_string) = (String::with_capacity(line.len()), line, false);
    while let Some(next) = rest.chars().next() {
        let token = BEYOND.into_iter().find(|token| !in_string && rest.starts_with(token));
        let (text, length) = match (token, next) {
            (Some(token), _) => ("null", token.len()),
            (None, '\\') if in_string => escape(rest),
            (None, _) => (&rest[..next.len_utf8()], next.len_utf8()),
        };
        in_string ^= next == '"';
        out.push_str(text);
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// Returns the replacement for the escape sequence at the start of `text`, and the length of the
/// sequence.
fn escape(text: &str) -> (&str, usize) {
    let unit = |at: usize| -> Option<u32> {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u32::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => (&text[..12], 12),
        (Some(0xD800..=0xDFFF), _) => ("\\ufffd", 6),
        _ => {
            let length = text.char_indices().nth(2).map_or(text.len(), |(at, _)| at);
            (&text[..length], length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{mend, row};

    #[test]
    fn what_python_writes_beyond_json_is_mended() {
        for (text, expected) in [
            (r#"{"a": NaN, "b": [-Infinity, Infinity]}"#, r#"{"a": null, "b": [null, null]}"#),
            (r#"{"NaN": "Infinity \" NaN"}"#, r#"{"NaN": "Infinity \" NaN"}"#),
            (
                r#"["\ud800", "\udc00x", "\ud83d\ude00"]"#,
                r#"["\ufffd", "\ufffdx", "\ud83d\ude00"]"#,
            ),
            (r#"["\\ud800", "\\", "é\\"]"#, r#"["\\ud800", "\\", "é\\"]"#),
            (r#"["\"#, r#"["\"#),
            (r#"["\u12"#, r#"["\u12"#),
        ] {
            assert_eq!(mend(text), expected);
        }
    }

    #[test]
    fn a_line_has_a_path_and_perhaps_a_label() {
        let read = |line: &str| {
            let row = row(line)?;
            Ok::<_, String>((row.file, row.label))
        };
        let named =
            |file: &str, label: Option<&str>| Ok((file.to_owned(), Ok(label.map(str::to_owned))));
        for (line, expected) in [
            (r#"{"path": "a.jpg", "label": 3}"#, named("a.jpg", Some("3"))),
            (r#"{"file_name": "a.jpg", "text": "a cat"}"#, named("a.jpg", None)),
            (
                r#"{"image": {"bytes": null, "path": "a.jpg"}, "class": "x"}"#,
                named("a.jpg", Some("x")),
            ),
            (r#"{"path": 3, "filename": "a.jpg", "label": null}"#, named("a.jpg", None)),
            (r#"{"path": "a.jpg", "score": NaN}"#, named("a.jpg", None)),
        ] {
            assert_eq!(read(line), expected, "{line}");
        }
        for line in [
            r#"{"path": "a.jpg", "score": NaN, "label": 3}"#,
            r#"{"path": "a.jpg", "label": "\ud800"}"#,
            r#"{"path": "a.jpg", "label": NaN}"#,
            r#"{"path": "a.jpg", "label": [1]}"#,
        ] {
            let (file, label) = read(line).unwrap();
            assert!(file == "a.jpg" && label.is_err(), "{line}");
        }
        for line in [r#"{"path": "a.j"#, "[]", "a.jpg", r#"{"url": "x"}"#, r#"{"path": ""}"#, "{}"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
