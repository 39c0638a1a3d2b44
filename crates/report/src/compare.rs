//! A page that compares several runs: their curves share charts, and their tables are side by side.

use std::collections::BTreeMap;

use eval::record::Record;
use eval::results::Results;
use serde_json::Value;

use super::chart::{Chart, MOST_LINES, Series};
use super::curves::points;
use super::evaluations::described;
use super::markup::{absent, escape, section, text_table};
use super::results::COLUMNS;
use super::run::Run;
use super::scale::{self, percent};
use super::sections::flatten;

/// For each chart: its title, the metric that it shows, the factor of its values, and a note.
const CHARTS: [(&str, &str, f64, &str); 9] = [
    ("k-NN accuracy during training", "probe/knn_top1", 100.0, "on held-out images, in percent"),
    (
        "Logistic regression during training",
        "probe/logistic_top1",
        100.0,
        "on held-out images, in percent",
    ),
    ("Segmentation during training", "probe/segment_knn_miou", 100.0, "mean IoU, in percent"),
    ("Loss", "loss/total", 1.0, "comparable only between runs with the same objective"),
    ("Position of the coding rate", "rate/position", 1.0, "0 is the floor, 1 is the ceiling"),
    ("Effective rank of the features", "probe/effective_rank", 1.0, ""),
    ("Effective dimension of the features", "probe/effective_dimension", 1.0, ""),
    ("Gradient norm", "optim/grad_norm", 1.0, "before clipping"),
    ("Throughput", "speed/img_s", 1.0, "images per second"),
];

/// Returns the body of the page as HTML.
pub(crate) fn body(runs: &[Run]) -> String {
    let names: Vec<String> = runs.iter().map(|run| escape(&run.name)).collect();
    let header = format!(
        "<header>\n<p class=\"kind\">simdino runs</p>\n<h1>{}</h1>\n</header>\n",
        names.join(", ")
    );
    [header, curves(runs), evaluations(runs), settings(runs)].concat()
}

/// Draws the curves of all runs, split into charts of at most [`MOST_LINES`] lines.
fn curves(runs: &[Run]) -> String {
    let mut html = String::new();
    for (title, key, factor, note) in CHARTS {
        let drawn: Vec<Series> = runs
            .iter()
            .map(|run| {
                let points = points(run, key).into_iter().map(|(x, y)| (x, factor * y));
                Series { name: run.name.clone(), points: points.collect(), ..Series::default() }
            })
            .filter(|series| !series.points.is_empty())
            .collect();
        for (i, series) in drawn.chunks(MOST_LINES).enumerate() {
            let part = if i == 0 { String::new() } else { format!(" ({})", i + 1) };
            let chart = Chart {
                title: format!("{title}{part}"),
                note: note.into(),
                x_label: "epoch".into(),
                series: series.to_vec(),
                ..Chart::default()
            };
            html.extend(chart.to_html());
        }
    }
    let missing = runs.iter().filter_map(|run| {
        let why = run.records.as_ref().err()?;
        Some(absent(&format!("Curves of {}", run.name), why))
    });
    let missing: String = missing.collect();
    if html.is_empty() && missing.is_empty() {
        return absent("Curves", "no run has logged any of the plotted metrics");
    }
    section("curves", "Training", &format!("<div class=\"charts\">\n{html}</div>\n{missing}"))
}

/// The cells of a row by index of the run, each with the training step of its weights.
type Cells = BTreeMap<usize, (u64, String)>;

/// Returns the table of evaluations: a row for each combination of protocol, settings, and metric,
/// and a column for each run.
fn evaluations(runs: &[Run]) -> String {
    // In the order of `runs`, and within a run in the order of its evaluations.
    let mut rows: Vec<([String; 3], Cells)> = Vec::new();
    // If a run was evaluated several times under one protocol, for example at several checkpoints,
    // the latest step is shown, and for the same step the latest evaluation.
    let mut put = |key: [String; 3], run: usize, step: u64, cell: String| {
        let at = rows.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            rows.push((key, Cells::new()));
            rows.len() - 1
        });
        let cells = &mut rows[at].1;
        if cells.get(&run).is_none_or(|(before, _)| step >= *before) {
            cells.insert(run, (step, cell));
        }
    };
    let mut missing = String::new();
    for (i, run) in runs.iter().enumerate() {
        let results = match records(run) {
            Ok(records) => records,
            Err(why) => {
                missing += &absent(&format!("Evaluations of {}", run.name), &why);
                continue;
            }
        };
        for (of, score) in knn_at_the_end(run) {
            put(["k-NN at the end of training".into(), of, String::new()], i, 0, score);
        }
        for record in &results {
            for (of, metrics) in record.columns() {
                for (name, &score) in metrics {
                    let key = [record.protocol.clone(), format!("{name}, {of}"), described(record)];
                    put(key, i, record.weights.step, scale::score(name, score));
                }
            }
        }
    }
    if rows.is_empty() {
        return missing + &absent("Evaluations", "no run has been evaluated");
    }
    let head = ["protocol", "metric", "settings and images"];
    let head: Vec<&str> =
        head.into_iter().chain(runs.iter().map(|run| run.name.as_str())).collect();
    let rows: Vec<Vec<String>> = rows
        .into_iter()
        .map(|(key, cells)| {
            let cell = |i| cells.get(&i).map_or_else(|| "-".to_owned(), |(_, cell)| cell.clone());
            key.into_iter().chain((0..runs.len()).map(cell)).collect()
        })
        .collect();
    let table = text_table(&head, &rows);
    section("evaluations", "Evaluations", &(table + &missing))
}

fn records(run: &Run) -> Result<Vec<Record>, String> {
    match run.results.as_ref()? {
        Value::Object(entries) => match Results::from_entries(entries.clone()) {
            Ok(results) => Ok(results.records().to_vec()),
            Err(error) => Err(format!("the evaluations in results.json are damaged: {error}")),
        },
        _ => Err("results.json holds no results".to_owned()),
    }
}

/// Returns the name and the top-1 accuracy of each column of the k-NN table in `results.json`.
fn knn_at_the_end(run: &Run) -> Vec<(String, String)> {
    let Ok(results) = &run.results else { return Vec::new() };
    let of = |(key, name): (&str, &str)| {
        let first = &results[key]["scores"][0];
        let (k, top1) = (first["k"].as_u64()?, first["top1"].as_f64()?);
        Some((format!("k = {k}, {name}"), percent(top1, 1)))
    };
    COLUMNS.into_iter().filter_map(of).collect()
}

/// Returns the table of the settings that are not the same for all runs.
fn settings(runs: &[Run]) -> String {
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut missing = String::new();
    for (i, run) in runs.iter().enumerate() {
        let value = run.config.as_ref().and_then(|config| serde_json::to_value(config).ok());
        let Some(value) = value else {
            let why = run.config_text.as_ref().err();
            let why = why.map_or("this version of simdino cannot read it", String::as_str);
            missing += &absent(&format!("Config of {}", run.name), why);
            continue;
        };
        let mut rows = Vec::new();
        flatten("", &value, &mut rows);
        for (key, value) in rows {
            let cells = by_key.entry(key).or_insert_with(|| vec!["-".to_owned(); runs.len()]);
            cells[i] = value;
        }
    }
    by_key.retain(|_, cells| cells.windows(2).any(|pair| pair[0] != pair[1]));
    let head: Vec<&str> =
        std::iter::once("key").chain(runs.iter().map(|run| run.name.as_str())).collect();
    let rows: Vec<Vec<String>> =
        by_key.into_iter().map(|(key, cells)| [vec![key], cells].concat()).collect();
    let body = if rows.is_empty() {
        "<p>All settings are the same.</p>\n".to_owned()
    } else {
        text_table(&head, &rows)
    };
    section("config", "Settings that differ", &(body + &missing))
}
