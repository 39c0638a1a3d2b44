//! Tests of results files: what is replaced, what stays, and what is refused.
#![allow(clippy::unwrap_used)] // test helpers

use std::fs;
use std::path::Path;

use eval::Error;
use eval::record::{DataUsed, Record, Weights};
use eval::results::{Results, update};
use serde_json::{Value, json};

fn record(protocol: &str, fingerprint: &str, top1: f64) -> Record {
    let weights =
        Weights { path: "a, b".into(), fingerprint: fingerprint.into(), ..Weights::default() };
    let mut record = Record::new(protocol, weights);
    record.set("rates", vec![0.07, 10f64.powf(-5.75), 1.0 / 3.0]);
    record.set("name", "v2");
    record.score("top1", top1);
    record.baseline("untrained", "top1", 0.1);
    record
}

fn put(folder: &Path, record: Record) {
    update(folder, |results| results.put(record)).unwrap();
}

#[test]
fn a_repeated_measurement_replaces_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    // The folder does not exist yet and must be created.
    let folder = folder.path().join("new/results");
    for (i, rate) in (0..30).zip([0.1, 0.2].into_iter().cycle()) {
        put(&folder, record("linear", "f0", f64::from(i) / 100.0 + rate / 10.0));
    }
    assert_eq!(Results::read(&folder).unwrap().records().len(), 1);
    let mut others = vec![record("knn", "f0", 0.5), record("linear", "f1", 0.5)];
    let changes: [fn(&mut Record); 7] = [
        |record| record.set("epochs", 3),
        |record| record.set("rates", vec![0.07, 10f64.powf(-5.75), 0.3333]),
        |record| record.resize = Some(224),
        |record| record.mask_size = Some(100),
        |record| record.precision = "bf16".into(),
        |record| record.weights.step = 7,
        |record| record.set("name", "v1"),
    ];
    others.extend(changes.iter().map(|change| {
        let mut record = record("linear", "f0", 0.5);
        change(&mut record);
        record
    }));
    for (i, other) in others.into_iter().enumerate() {
        put(&folder, other);
        assert_eq!(Results::read(&folder).unwrap().records().len(), i + 2);
    }
    // The path of the weights does not matter.
    let mut moved = record("linear", "f0", 0.75);
    moved.weights.path = "elsewhere".into();
    put(&folder, moved.clone());
    let results = Results::read(&folder).unwrap();
    assert_eq!((results.records().len(), results.records()[0].main_score()), (10, Some(0.75)));
}

#[test]
fn a_baseline_that_is_not_measured_again_stays() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), record("linear", "f0", 0.25));
    let mut again = record("linear", "f0", 0.5);
    again.baselines.clear();
    again.version = "9.9.9".into();
    put(folder.path(), again);
    let results = Results::read(folder.path()).unwrap();
    let [record] = results.records() else { panic!("{results:?}") };
    assert_eq!((record.main_score(), record.baselines["untrained"]["top1"]), (Some(0.5), 0.1));
    assert!(
        record.notes[0].contains("the scores of untrained were computed by version"),
        "{record:?}"
    );
}

#[test]
fn the_truth_is_known_by_what_its_files_hold() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("truth.json");
    let used = |text: &str| {
        fs::write(&path, text).unwrap();
        let mut record = record("maskcut", "f0", 0.5);
        record.data.push(DataUsed::truth(&path, std::slice::from_ref(&path)).unwrap());
        record
    };
    let (first, same, other) = (used("{}"), used("{}"), used("[]"));
    assert!(first.repeats(&same) && !first.repeats(&other));
    let missing = DataUsed::truth(folder.path(), &[folder.path().join("no.png")]);
    assert!(missing.unwrap_err().to_string().contains("no.png"));
}

#[test]
fn what_else_the_file_has_stays() {
    let folder = tempfile::tempdir().unwrap();
    let table = json!({"knn": {"scores": [{"k": 20, "top1": 0.5}]}, "crop": 32});
    fs::write(folder.path().join("results.json"), table.to_string()).unwrap();
    put(folder.path(), record("linear", "f0", 0.25));
    update(folder.path(), |results| results.set_table(&json!({"crop": 64}))).unwrap();
    let error = update(folder.path(), |results| results.set_table(&3)).unwrap_err();
    assert!(error.to_string().starts_with("table: must be a JSON object"), "{error}");
    let text = fs::read_to_string(folder.path().join("results.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&file["knn"], &file["crop"]), (&table["knn"], &json!(64)));
    assert_eq!(file["evaluations"][0]["metrics"]["top1"], 0.25);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left behind");
}

#[test]
fn the_table_has_a_row_per_number() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), record("linear", "f0", 0.25));
    let mut reader = csv::Reader::from_path(folder.path().join("results.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
    let cell = |row: usize, name: &str| {
        let column = header.iter().position(|title| title == name).unwrap();
        rows[row][column].to_owned()
    };
    assert_eq!(rows.len(), 2);
    assert_eq!(
        [cell(0, "of"), cell(0, "metric"), cell(0, "value")],
        ["this network", "top1", "0.25"]
    );
    assert_eq!([cell(1, "of"), cell(1, "value"), cell(1, "weights")], ["untrained", "0.1", "a, b"]);
}

#[test]
fn a_number_that_is_none_is_refused_and_the_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), record("linear", "f0", 0.25));
    let before = fs::read(folder.path().join("results.json")).unwrap();
    let bad: [fn(&mut Record); 4] = [
        |record| record.score("top1", f64::NAN),
        |record| record.baseline("pixels", "top1", f64::INFINITY),
        |record| record.effective_rank = Some(f64::NAN),
        |record| record.metrics.clear(),
    ];
    for change in bad {
        let mut record = record("linear", "f0", 0.5);
        change(&mut record);
        let error = update(folder.path(), |results| results.put(record)).unwrap_err();
        let expected = matches!(error, Error::ScoreNotFinite { .. } | Error::NoScore { .. });
        assert!(expected && error.to_string().contains("linear has no result"), "{error}");
        assert_eq!(fs::read(folder.path().join("results.json")).unwrap(), before);
    }
}

#[test]
fn a_damaged_file_is_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("results.json");
    for text in ["{", "[]", r#"{"evaluations": {}}"#, r#"{"evaluations": [{"metrics": 3}]}"#] {
        fs::write(&path, text).unwrap();
        let error =
            update(folder.path(), |results| results.put(record("a", "b", 0.5))).unwrap_err();
        assert!(error.to_string().contains("results.json: the file is damaged"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    // Files of later versions may have more keys, and those of earlier versions fewer.
    fs::write(&path, r#"{"evaluations": [{"protocol": "a", "later": 1}]}"#).unwrap();
    assert_eq!(Results::read(folder.path()).unwrap().records()[0].protocol, "a");
}

#[cfg(unix)]
#[test]
fn evaluations_that_end_together_all_stay() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let folder = folder.path();
            scope.spawn(move || {
                for i in 0..5 {
                    put(folder, record("knn", &format!("{thread}.{i}"), 0.5));
                }
            });
        }
    });
    assert_eq!(Results::read(folder.path()).unwrap().records().len(), 20);
}
