//! Reads the outcome of a run of a study.

use std::fs;
use std::path::Path;

use objectives::health::Signals;
use report::study::Row;
use serde_json::Value;
use trainer::metrics::{Record, read_jsonl};

use super::grid::RunSpec;

/// Name of the file in a run's folder that marks it as done, with its settings and its row.
pub const DONE: &str = "study.json";

/// Creates a row without results.
pub fn row_of(spec: &RunSpec, status: &str) -> Row {
    Row {
        run: spec.name.clone(),
        method: spec.method.clone(),
        cell: spec.cell.clone(),
        seed: spec.seed,
        status: status.to_owned(),
        ..Row::default()
    }
}

/// Reads the results of a run that has ended successfully.
///
/// # Errors
/// Returns an error if the metrics cannot be read.
pub fn read(spec: &RunSpec, folder: &Path, seconds: f64) -> Result<Row, String> {
    let records = read_jsonl(&folder.join("metrics.jsonl")).map_err(|e| e.to_string())?;
    let results = fs::read_to_string(folder.join("results.json")).ok();
    let results: Value =
        results.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let last = |name: &str| records.iter().rev().find_map(|record| record.get(name));
    let top1 = |key: &str| results[key]["scores"][0]["top1"].as_f64();
    let verdict = signals(&last).verdict();
    let steps = records.last().map_or(1, |record| record.step).max(1) as f64;
    let curve = records.iter().filter_map(|record| {
        record.get("probe/knn_top1").map(|knn| (record.step as f64 / steps, knn))
    });
    Ok(Row {
        knn: top1("knn").or_else(|| last("probe/knn_top1")),
        untrained: top1("untrained"),
        pixels: top1("pixels"),
        logistic: last("probe/logistic_top1"),
        miou: last("probe/segment_knn_miou"),
        probe_rank: last("probe/effective_rank"),
        similarity: last("loss/compression"),
        position: last("rate/position"),
        least_position: least(&records),
        coeff: last("rate/coeff"),
        effective_rank: last("health/effective_rank"),
        collapsed: Some(verdict.is_some()),
        images_per_second: speed(&records),
        seconds: Some(seconds),
        message: verdict.unwrap_or_default(),
        curve: curve.collect(),
        ..row_of(spec, "done")
    })
}

/// Returns the lowest position after the first tenth of the training.
fn least(records: &[Record]) -> Option<f64> {
    let last = records.last()?.step;
    let late = records.iter().filter(|record| 10 * record.step >= last);
    late.filter_map(|record| record.get("rate/position")).min_by(f64::total_cmp)
}

/// Returns the median speed, which the slow start of a run does not affect.
fn speed(records: &[Record]) -> Option<f64> {
    let mut speeds: Vec<f64> = records.iter().filter_map(|r| r.get("speed/img_s")).collect();
    speeds.sort_by(f64::total_cmp);
    speeds.get(speeds.len() / 2).copied()
}

/// Returns the health signals at the end of a run, from the latest value of each metric. The latest
/// values are spread over several lines.
fn signals(last: &impl Fn(&str) -> Option<f64>) -> Signals {
    let uniform = last("loss/uniform");
    Signals {
        // A metric that is not logged must not look like a collapse.
        feature_std: last("health/feature_std").unwrap_or(1.0),
        effective_rank: last("health/effective_rank").unwrap_or(f64::INFINITY),
        rate_position: last("rate/position"),
        compression: last("loss/compression"),
        loss_over_uniform: last("loss/cls").zip(uniform).map(|(loss, most)| loss / most),
        teacher_entropy: last("teacher/entropy"),
        entropy_of_mean: last("teacher/entropy_of_mean"),
        one_image: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(lines: &[&str]) -> Row {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("metrics.jsonl"), lines.join("\n") + "\n").unwrap();
        let spec = RunSpec {
            name: "run".into(),
            method: "held".into(),
            cell: Vec::new(),
            seed: 0,
            overrides: Vec::new(),
        };
        read(&spec, folder.path(), 1.0).unwrap()
    }

    #[test]
    fn a_collapse_is_seen_although_a_probe_comes_after_it() {
        let step = |similarity, position| {
            format!(
                r#"{{"step":10,"epoch":1.0,"loss/compression":{similarity},"rate/position":{position}}}"#
            )
        };
        let probe = r#"{"step":10,"epoch":1.0,"probe/knn_top1":0.1,"probe/logistic_top1":0.2,"probe/effective_rank":1.5}"#;
        let row = outcome(&[&step(0.99, 0.01), probe]);
        assert_eq!((row.logistic, row.miou, row.probe_rank), (Some(0.2), None, Some(1.5)));
        assert_eq!(row.collapsed, Some(true));
        assert!(row.message.contains("nearly the same features"), "{}", row.message);
        assert_eq!(outcome(&[&step(0.9, 0.5), probe]).collapsed, Some(false));
    }
}
