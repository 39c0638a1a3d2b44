//! Tests of the pages of synthetic runs, both complete and with missing files.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A file that begins like a PNG, which is all that this crate checks.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\nrest";

fn run_folder(name: &str) -> (tempfile::TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join(name);
    fs::create_dir_all(folder.join("pictures")).unwrap();
    (root, folder)
}

/// Parses a config as JSON, which is valid YAML, so that the tests need no YAML parser.
fn read_config(text: &str) -> Option<RunConfig> {
    let document = serde_json::from_str(text).ok()?;
    let read_value = |value: &str| Err(value.to_owned());
    simdino::config::from_document(document, &[], &read_value).ok().map(|resolved| resolved.config)
}

fn metrics() -> String {
    let mut text = String::from(
        "{\"step\":0,\"epoch\":0,\"probe/knn_top1\":0.31,\"probe/untrained\":0.31,\"probe/pixels\":0.28}\n",
    );
    for step in 1..=40 {
        let epoch = f64::from(step) / 10.0;
        text += &format!(
            "{{\"step\":{step},\"epoch\":{epoch},\"loss/total\":-0.5,\"loss/expansion\":0.4,\
             \"rate/floor\":0.02,\"rate/ceiling\":0.45,\"rate/position\":0.88,\"speed/step_ms\":500}}\n"
        );
    }
    text + "{\"step\":40,\"epoch\":4,\"probe/knn_top1\":0.62}\n"
}

#[test]
fn a_whole_run_has_every_section() {
    let (_root, folder) = run_folder("demo");
    fs::write(folder.join("metrics.jsonl"), metrics()).unwrap();
    let config = r#"{"data": {"path": "photos"}, "train": {"batch_size": 64}}"#;
    fs::write(folder.join("config.resolved.yaml"), config).unwrap();
    fs::write(folder.join("env.json"), r#"{"device": "A & B", "cuda": null}"#).unwrap();
    let scores = r#"{"scores":[{"k":20,"top1":0.62,"top5":0.91}],"num_train":300,"num_test":100}"#;
    let results =
        format!(r#"{{"knn":{scores},"untrained":{scores},"pixels":[{{"k":20,"top1":0.25}}]}}"#);
    fs::write(folder.join("results.json"), results).unwrap();
    fs::write(folder.join("bad_images.tsv"), "file\treason\na<b>.jpg\tcut short\n").unwrap();
    let other = "file\treason\nb.jpg\tno pixels\na<b>.jpg\tcut short\n";
    fs::write(folder.join("bad_images.3.tsv"), other).unwrap();
    fs::write(folder.join("pictures/crops.png"), PNG).unwrap();
    fs::write(folder.join("pictures/pca.png"), PNG).unwrap();

    let html = super::html(&folder, &read_config).unwrap();
    for expect in [
        "<h1>demo</h1>",
        "62.0%",
        "this run is 37.0 points above",
        "<td>k = 20</td><td>62.0%</td><td>62.0%</td><td>25.0%</td>",
        "<td>k = 20, top-5</td><td>91.0%</td><td>91.0%</td><td>-</td>",
        "100 test images, 300 training images",
        "floor: collapsed",
        "simdino with vit_small, patch size 16, on photos, batch size 64; 40 steps, 4.0 epochs",
        "<td>train.batch_size</td><td>64</td><td>512</td>",
        "A &amp; B",
        "a&lt;b&gt;.jpg",
        "b.jpg",
        "2 images could not be read and were replaced",
        "20 s",
        "data:image/png;base64,iVBORw0KGgpyZXN0",
    ] {
        assert!(html.contains(expect), "{expect}");
    }
    assert!(!html.contains("class=\"absent\""), "nothing is missing");
    assert!(!html.contains("http"), "nothing comes from the network");
}

#[test]
fn all_evaluations_are_in_one_table() {
    let (_root, folder) = run_folder("demo");
    fs::write(folder.join("metrics.jsonl"), metrics()).unwrap();
    let weights = eval::record::Weights { step: 40, ..Default::default() };
    let mut record = eval::record::Record::new("linear <v2>", weights);
    record.set("epochs", 10);
    record.set("rates", (0..9).collect::<Vec<i32>>());
    record.score("top1", 0.625);
    record.score("top5", 0.75);
    record.baseline("untrained", "top1", 0.125);
    (record.resize, record.effective_dimension) = (Some(256), Some(17.25));
    eval::results::update(&folder, |results| results.put(record)).unwrap();
    let html = super::html(&folder, &read_config).unwrap();
    for expect in [
        "<h2>Evaluations</h2>",
        "<td>40</td><td>linear &lt;v2&gt;</td><td>top-1</td><td>62.5%</td><td>12.5%</td><td>-</td><td>-</td>",
        "<summary>linear &lt;v2&gt; of , step 40</summary>",
        "<td>other metrics</td><td>top-5 75.0%</td>",
        "<td>effective dimension</td><td>17.2</td>",
        "<td>settings</td><td>epochs 10, rates 9 values from 0 to 8</td>",
        "<td>images</td><td>resize 256</td>",
    ] {
        assert!(html.contains(expect), "{expect}");
    }
    assert!(html.contains("results.json holds no k-NN result"), "the other table is still missed");
    fs::write(folder.join("results.json"), r#"{"evaluations": [{"metrics": {"a": null}}]}"#)
        .unwrap();
    let html = super::html(&folder, &read_config).unwrap();
    assert!(html.contains("<b>Evaluations</b>: the evaluations in results.json are damaged"));
}

#[test]
fn a_folder_of_evaluations_is_a_page_with_their_table() {
    let (_root, folder) = run_folder("a & b");
    let error = super::html(&folder, &read_config).unwrap_err().to_string();
    assert!(error.contains("is not a run: there is no metrics.jsonl"), "{error}");
    let put = |path: &str, score: f64| {
        let (path, fingerprint) = (path.to_owned(), path.to_owned());
        let weights = eval::record::Weights { path, fingerprint, step: 0 };
        let mut record = eval::record::Record::new("depth", weights);
        record.score("d1", score);
        record.baseline("mean map", "d1", 0.25);
        record.note("classes <none>");
        eval::results::update(&folder, |results| results.put(record)).unwrap();
    };
    put("one.pth", 0.5);
    put("two.pth", 0.75);
    let html = super::html(&folder, &read_config).unwrap();
    for expect in [
        "<h1>a &amp; b</h1>",
        "2 evaluations of 2 networks",
        "<td>depth</td><td>d1</td><td>50.0%</td><td>-</td><td>25.0% (mean map)</td>",
        "<td>two.pth</td>",
    ] {
        assert!(html.contains(expect), "{expect}");
    }
    assert_eq!(html.matches("classes &lt;none&gt;").count(), 1);
    assert!(super::damage(&folder, &read_config).is_empty());
    fs::write(folder.join("results.json"), "{").unwrap();
    let error = super::html(&folder, &read_config).unwrap_err().to_string();
    assert!(error.contains("results.json: the file is damaged"), "{error}");
}

#[test]
fn several_runs_share_charts_and_tables() {
    let (_root, first) = run_folder("first");
    let (_other, second) = run_folder("a<b");
    for (folder, batch) in [(&first, 64), (&second, 128)] {
        fs::write(folder.join("metrics.jsonl"), metrics()).unwrap();
        let config =
            format!(r#"{{"data": {{"path": "photos"}}, "train": {{"batch_size": {batch}}}}}"#);
        fs::write(folder.join("config.resolved.yaml"), config).unwrap();
    }
    fs::write(first.join("results.json"), r#"{"knn":{"scores":[{"k":20,"top1":0.5}]}}"#).unwrap();
    let mut record = eval::record::Record::new("linear", eval::record::Weights::default());
    record.score("top1", 0.625);
    eval::results::update(&second, |results| results.put(record)).unwrap();
    let folders = [first.clone(), second.clone()];
    let html = super::html_of_several(&folders, &read_config).unwrap();
    for expect in [
        "<h1>first, a&lt;b</h1>",
        "k-NN accuracy during training",
        "<td>k = 20, this network</td><td></td><td>50.0%</td><td>-</td>",
        "<td>linear</td><td>top1, this network</td><td></td><td>-</td><td>62.5%</td>",
        "<td>train.batch_size</td><td>64</td><td>128</td>",
    ] {
        assert!(html.contains(expect), "{expect}");
    }
    assert!(!html.contains("data.path"), "equal settings are left out");
    // The score of the last step is shown, even if an earlier checkpoint is evaluated afterwards.
    for (step, top1) in [(40, 0.75), (8, 0.125)] {
        let weights = eval::record::Weights { step, ..Default::default() };
        let mut record = eval::record::Record::new("logistic", weights);
        record.score("top1", top1);
        eval::results::update(&second, |results| results.put(record)).unwrap();
    }
    let html = super::html_of_several(&folders, &read_config).unwrap();
    let row = "<td>logistic</td><td>top1, this network</td><td></td><td>-</td><td>75.0%</td>";
    assert!(html.contains(row), "{html}");
    // Two runs have the same name, and one of them has no config and no results.
    let (_third, third) = run_folder("first");
    fs::write(third.join("metrics.jsonl"), metrics()).unwrap();
    let html = super::html_of_several(&[first.clone(), third.clone()], &read_config).unwrap();
    for expect in
        [first.display().to_string(), "there is no results.json".into(), "Config of".into()]
    {
        assert!(html.contains(&expect), "{expect}");
    }
    assert!(super::html_of_several(&[first, third.join("no")], &read_config).is_err());
}

#[test]
fn missing_pieces_are_said() {
    let (_root, folder) = run_folder("half");
    fs::write(folder.join("metrics.jsonl"), "{\"step\":1,\"epoch\":0.1,\"loss/total\":null}\n")
        .unwrap();
    fs::write(folder.join("pictures/pca.png"), "not a picture").unwrap();
    fs::write(folder.join("results.json"), "{").unwrap();
    let html = super::html(&folder, &read_config).unwrap();
    for expect in [
        "<b>Curves</b>: metrics.jsonl has no values of training steps yet",
        "<b>k-NN table</b>: results.json is damaged",
        "<b>k-NN during training</b>: this run had no probe",
        "there is no crops.png",
        "pca.png is not a PNG",
        "<b>Config</b>: there is no config.resolved.yaml",
        "<b>Environment</b>: there is no env.json",
    ] {
        assert!(html.contains(expect), "{expect}");
    }
}

#[test]
fn what_is_no_run_is_a_sentence() {
    let (_root, folder) = run_folder("empty");
    let error = super::html(&folder, &read_config).unwrap_err().to_string();
    assert!(error.ends_with("is not a run: there is no metrics.jsonl"), "{error}");
    let error = super::html(&folder.join("no"), &read_config).unwrap_err().to_string();
    assert!(error.ends_with("no such folder"), "{error}");
}
