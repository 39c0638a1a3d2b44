//! The k-NN results of a run and of its two baselines.

use serde_json::Value;

use super::markup::{escape, table as html_table, tile};
use super::run::Run;
use super::scale::percent;

/// Columns of the table: the key in `results.json` and the title.
pub(crate) const COLUMNS: [(&str, &str); 3] =
    [("knn", "this network"), ("untrained", "untrained"), ("pixels", "raw pixels")];

/// Accuracies for one number of neighbors.
struct Score {
    k: u64,
    top1: f64,
    top5: Option<f64>,
}

/// Returns the scores of one column, accuracies from 0 to 1. The key holds either a list of scores
/// or an object that contains one.
fn scores(results: &Value, key: &str) -> Vec<Score> {
    let column = &results[key];
    let list = column.as_array().or_else(|| column["scores"].as_array());
    let read = |score: &Value| {
        Some(Score {
            k: score["k"].as_u64()?,
            top1: score["top1"].as_f64()?,
            top5: score["top5"].as_f64(),
        })
    };
    list.into_iter().flatten().filter_map(read).collect()
}

fn top1(run: &Run, key: &str) -> Option<f64> {
    scores(run.results.as_ref().ok()?, key).first().map(|score| score.top1)
}

/// Returns the tiles of the key numbers: the accuracy and how far it is from the baselines. Without
/// a final result, the latest value of the probe is used.
pub(crate) fn tiles(run: &Run) -> Vec<String> {
    let value = |key, probe| top1(run, key).or_else(|| run.last(probe));
    let Some(here) = value("knn", "probe/knn_top1") else { return Vec::new() };
    let mut tiles = vec![tile("k-NN accuracy", &percent(here, 1), "without training on labels")];
    for (name, baseline) in [
        ("untrained network", value("untrained", "probe/untrained")),
        ("raw pixels", value("pixels", "probe/pixels")),
    ] {
        let Some(baseline) = baseline else { continue };
        let points = 100.0 * (here - baseline);
        let remark = format!("this run is {:.1} points {}", points.abs(), above(points));
        tiles.push(tile(name, &percent(baseline, 1), &remark));
    }
    tiles
}

fn above(points: f64) -> &'static str {
    if points < 0.0 { "below" } else { "above" }
}

/// Returns the k-NN table as HTML, or the reason why there is none.
pub(crate) fn table(run: &Run) -> Result<String, String> {
    let results = run.results.as_ref().map_err(Clone::clone)?;
    let columns = COLUMNS.map(|(key, _)| scores(results, key));
    let [here, ..] = &columns;
    let Some(first) = here.first() else {
        return Err("results.json holds no k-NN result".into());
    };
    let row = |name: String, k: u64, value: &dyn Fn(&Score) -> Option<f64>| {
        let cell = |scores: &Vec<Score>| {
            let found = scores.iter().find(|score| score.k == k).and_then(value);
            found.map_or_else(|| "-".into(), |top1| percent(top1, 1))
        };
        std::iter::once(name).chain(columns.iter().map(cell)).collect::<Vec<String>>()
    };
    let mut rows: Vec<Vec<String>> =
        here.iter().map(|s| row(format!("k = {}", s.k), s.k, &|s| Some(s.top1))).collect();
    if first.top5.is_some() {
        rows.push(row(format!("k = {}, top-5", first.k), first.k, &|s| s.top5));
    }
    let head = ["", COLUMNS[0].1, COLUMNS[1].1, COLUMNS[2].1];
    Ok(format!(
        "<div>\n{}<p class=\"note\">{}</p></div>\n",
        html_table(&head, &rows),
        escape(&sizes(results))
    ))
}

/// Describes the protocol, with the numbers of images if the file states them.
fn sizes(results: &Value) -> String {
    let count = |key: &str| results["knn"][key].as_u64().or_else(|| results[key].as_u64());
    let protocol = "Weighted k-NN on frozen features";
    match (count("num_train"), count("num_test")) {
        (Some(train), Some(test)) => {
            format!(
                "{protocol}: {test} test images, {train} training images. \
                 Untrained is the same network before its first step."
            )
        }
        _ => format!("{protocol}. Untrained is the same network before its first step."),
    }
}
