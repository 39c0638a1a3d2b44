//! Labels written as text, in lists and shards, to class numbers.

use std::collections::BTreeSet;

/// Labels above this are taken for names: a class number indexes arrays.
const MAX_NUMBER: u32 = 1_000_000;

/// The classes of a source.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    /// Class of each image.
    pub(super) labels: Vec<Option<u32>>,
    /// Names by class; empty for bare numbers.
    pub(super) names: Vec<String>,
}

impl Labels {
    /// Where every label is a whole number it is the class itself; otherwise all are names and
    /// classes are numbered in the names' order. An absent, empty or negative label is none.
    pub(super) fn from_texts(texts: &[Option<String>]) -> Self {
        let texts: Vec<Option<&str>> = texts.iter().map(|text| present(text.as_deref())).collect();
        let numbers: Vec<Option<u32>> =
            texts.iter().map(|text| text.and_then(|text| text.parse().ok())).collect();
        let numeric = texts.iter().zip(&numbers).all(|(text, number)| {
            text.is_none() || number.is_some_and(|number| number <= MAX_NUMBER)
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

/// The label's text, unless it stands for "no label".
fn present(text: Option<&str>) -> Option<&str> {
    let text = text?.trim();
    let negative = text.parse::<i64>().is_ok_and(|number| number < 0);
    (!text.is_empty() && !negative).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::Labels;

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
        check(&["7", "cat"], &[Some(0), Some(1)], &["7", "cat"]);
        check(&["4000000000", "1"], &[Some(1), Some(0)], &["1", "4000000000"]);
        assert_eq!(Labels::from_texts(&[None, None]).labels, [None, None]);
    }
}
