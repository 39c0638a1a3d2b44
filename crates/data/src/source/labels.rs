//! Converts labels written as text or JSON, in lists and shards, to class numbers.

use std::collections::BTreeSet;

use serde_json::Value;

/// Largest label that is treated as a class number rather than a name, because class numbers index
/// arrays.
const MAX_NUMBER: u32 = 1_000_000;

/// The classes of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Class of each image.
    pub(super) labels: Vec<Option<u32>>,
    /// Names by class; empty for plain numbers.
    pub(super) names: Vec<String>,
}

impl Labels {
    /// Converts labels to classes. If every label is an integer (`3`, or `3.0` as written by
    /// programs that store integers with missing values as floats), it is the class itself, and
    /// `nan` means that there is no label. Otherwise, all labels are names, and classes are
    /// numbered in the sorted order of the names. An absent, empty, or negative label means that
    /// there is none.
    pub(super) fn from_texts(texts: &[Option<String>]) -> Self {
        let texts: Vec<Option<&str>> = texts.iter().map(|text| present(text.as_deref())).collect();
        let numbers: Vec<Option<u32>> =
            texts.iter().map(|text| text.and_then(|text| whole(text).parse().ok())).collect();
        let numeric = texts.iter().zip(&numbers).all(|(text, number)| {
            text.is_none_or(|text| text.eq_ignore_ascii_case("nan"))
                || number.is_some_and(|number| number <= MAX_NUMBER)
        });
        if numeric {
            return Self { labels: numbers, names: Vec::new() };
        }
        let names: Vec<&str> =
            texts.iter().copied().flatten().collect::<BTreeSet<_>>().into_iter().collect();
        let class = |text: &str| names.binary_search(&text).ok().map(|class| class as u32);
        Self {
            labels: texts.iter().map(|text| text.and_then(class)).collect(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
        }
    }
}

/// Returns the trimmed text of the label, unless it means that there is none.
fn present(text: Option<&str>) -> Option<&str> {
    let text = text?.trim();
    let negative = whole(text).parse::<i64>().is_ok_and(|number| number < 0);
    (!text.is_empty() && !negative).then_some(text)
}

/// Removes a fractional part that consists of zeros; returns any other text unchanged.
fn whole(text: &str) -> &str {
    match text.split_once('.') {
        Some((head, zeros)) if !zeros.is_empty() && zeros.bytes().all(|byte| byte == b'0') => head,
        _ => text,
    }
}

/// Returns the label for a JSON value, `None` for null, or the reason why the value is not a label.
pub(super) fn of_json(value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(name) => Ok(Some(name.clone())),
        Value::Number(number) => of_number(number.as_f64()).ok_or(number.to_string()),
        other => Err(other.to_string()),
    }
    .map_err(|text| {
        let text: String = text.chars().take(40).collect();
        format!("neither a name nor an integer: {text}")
    })
}

/// Returns the label for a number. The inner value is `None` if the number is NaN, and the outer
/// one if it is not an integer.
pub(super) fn of_number(number: Option<f64>) -> Option<Option<String>> {
    let number = number?;
    if number.is_nan() {
        return Some(None);
    }
    // 2^53, above which not every integer has its own `f64`.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    (number.fract() == 0.0 && number.abs() < EXACT).then(|| Some(format!("{number:.0}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Labels, of_json};

    fn check(texts: &[&str], labels: &[Option<u32>], names: &[&str]) {
        let texts: Vec<Option<String>> = texts.iter().map(|text| Some(text.to_string())).collect();
        let got = Labels::from_texts(&texts);
        assert_eq!(got.labels, labels);
        assert_eq!(got.names, names);
    }

    #[test]
    fn numbers_stay_and_names_are_numbered() {
        check(&["3", " 0", "", "-1"], &[Some(3), Some(0), None, None], &[]);
        check(&["dog", "cat", "dog", ""], &[Some(1), Some(0), Some(1), None], &["cat", "dog"]);
        check(
            &["3.0", "0", "-1.0", "NaN", "12.00"],
            &[Some(3), Some(0), None, None, Some(12)],
            &[],
        );
        check(&["1.5", "1"], &[Some(1), Some(0)], &["1", "1.5"]);
        check(&["nan", "cat"], &[Some(1), Some(0)], &["cat", "nan"]);
        check(&["7", "cat"], &[Some(0), Some(1)], &["7", "cat"]);
        check(&["4000000000", "1"], &[Some(1), Some(0)], &["1", "4000000000"]);
        assert_eq!(Labels::from_texts(&[None, None]).labels, [None, None]);
    }

    #[test]
    fn a_value_of_json_is_a_label_or_says_why_not() {
        for (value, label) in [
            (json!(null), None),
            (json!("a cat"), Some("a cat")),
            (json!(7), Some("7")),
            (json!(-1), Some("-1")),
            (json!(3.0), Some("3")),
        ] {
            assert_eq!(of_json(&value), Ok(label.map(str::to_owned)), "{value}");
        }
        for value in [json!(1.5), json!(true), json!([1]), json!({"a": 1}), json!(1e300)] {
            let why = of_json(&value).unwrap_err();
            assert!(why.starts_with("neither a name nor an integer: "), "{value}: {why}");
        }
    }
}
