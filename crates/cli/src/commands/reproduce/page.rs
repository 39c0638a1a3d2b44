//! The table that compares values: `paper | elsewhere | here`.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::row::{Measure, Row, Tolerance, Value};

/// A line of the table: a number of the paper and ours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub row: String,
    pub network: Option<String>,
    pub measure: String,
    pub metric: String,
    /// Value in the paper in percent; `None` if it is unknown.
    pub paper: Option<f64>,
    pub source: String,
    pub elsewhere: Vec<Elsewhere>,
    /// Our value in percent; `None` if it has not been measured.
    pub here: Option<f64>,
    /// Largest difference that counts as the same result, in percentage points.
    pub tolerance: f64,
    /// `same`, `differs`, or why there is no verdict.
    pub verdict: String,
}

/// A value that others published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Elsewhere {
    pub value: f64,
    pub source: String,
}

/// Our result of a measure.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Scores from 0 to 1 by name.
    pub scores: Vec<(String, f64)>,
    /// Why there are no scores, or why they cannot be compared with the paper.
    pub but: Option<String>,
    /// Whether the weights are the authors' released ones.
    pub released: bool,
}

/// Returns the lines of a measure.
pub fn lines<'a>(
    row: &'a Row,
    measure: &'a Measure,
    here: &'a Here,
) -> impl Iterator<Item = Line> + 'a {
    measure.values.iter().map(move |value| line(row, measure, value, here))
}

fn line(row: &Row, measure: &Measure, value: &Value, here: &Here) -> Line {
    let score = here.scores.iter().find(|(name, _)| name == value.metric);
    let score = score.map(|(_, score)| 100.0 * score);
    let Tolerance { released, trained } = measure.tolerance;
    let tolerance = if here.released { released } else { trained };
    let verdict = match (&here.but, score, value.paper) {
        (Some(why), ..) => why.clone(),
        (None, None, _) => "not measured".to_owned(),
        (None, Some(_), None) => "the paper's value is unknown".to_owned(),
        (None, Some(score), Some(paper)) if (score - paper).abs() <= tolerance => "same".to_owned(),
        _ => "differs".to_owned(),
    };
    let other = |&(value, source): &(f64, &str)| Elsewhere { value, source: source.to_owned() };
    let elsewhere = value.elsewhere.iter().map(other);
    Line {
        row: row.name.clone(),
        network: row.network.map(str::to_owned),
        measure: measure.name.to_owned(),
        metric: value.metric.to_owned(),
        paper: value.paper,
        source: row.source.to_owned(),
        elsewhere: elsewhere.collect(),
        here: score,
        tolerance,
        verdict,
    }
}

/// Formats the table in Markdown, with the sources below it.
pub fn markdown(lines: &[Line]) -> String {
    let mut text = String::from(
        "| row | network | metric | paper | elsewhere | here | tolerance | |\n|---|---|---|---|---|---|---|---|\n",
    );
    let mut sources: Vec<&str> = Vec::new();
    for line in lines {
        let paper = match line.paper {
            Some(value) => format!("{} [{}]", published(value), place(&mut sources, &line.source)),
            None => "unknown".to_owned(),
        };
        let elsewhere = line.elsewhere.iter().map(|other| {
            let at = place(&mut sources, &other.source);
            format!("{} [{at}]", published(other.value))
        });
        let elsewhere = elsewhere.collect::<Vec<_>>().join(", ");
        let Line { row, measure, metric, here, tolerance, verdict, .. } = line;
        let network = line.network.as_deref().unwrap_or("-");
        let _ = writeln!(
            text,
            "| {row} | {network} | {measure}: {metric} | {paper} | {elsewhere} | {} | {tolerance} | {verdict} |",
            here.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
        );
    }
    if !sources.is_empty() {
        text.push('\n');
    }
    for (i, source) in sources.iter().enumerate() {
        let _ = writeln!(text, "[{}] {source}  ", i + 1);
    }
    text
}

/// Formats a value with the decimals that it was published with: one or two.
fn published(value: f64) -> String {
    let digits = if (10.0 * value - (10.0 * value).round()).abs() < 1e-6 { 1 } else { 2 };
    format!("{value:.digits$}")
}

/// Returns the number of a source, counted from 1, and adds the source if it is new.
fn place<'a>(sources: &mut Vec<&'a str>, source: &'a str) -> usize {
    if let Some(at) = sources.iter().position(|known| *known == source) {
        return at + 1;
    }
    sources.push(source);
    sources.len()
}

/// Lists rows without results: what each shows, and how many of its values are known.
pub fn list(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let known = row.measures.iter().flat_map(|measure| &measure.values);
        let count = known.clone().count();
        let unknown = known.filter(|value| value.paper.is_none()).count();
        let values = match (count, unknown) {
            (0, _) => "no numbers".to_owned(),
            (1, 0) => "1 value".to_owned(),
            (count, 0) => format!("{count} values"),
            (count, unknown) if count == unknown => "values unknown".to_owned(),
            (count, unknown) => format!("{count} values, {unknown} unknown"),
        };
        let _ = writeln!(text, "{:<width$}  {}; {values}", row.name, row.shows);
    }
    text
}
