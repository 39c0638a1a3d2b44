//! Tests of evaluations with the real binary: several networks at once, files of results, and
//! invalid input.

#![allow(clippy::unwrap_used, reason = "helpers outside of tests")]

mod common;

use std::fs;
use std::path::Path;

use common::{Bench, stderr};
use serde_json::Value;

const SETS: [&str; 6] = ["--train", "images/images", "--test", "images/images", "--device", "cpu"];

/// Runs `simdino ARGS` on one thread, because many tests run in parallel and all tensors are small.
/// Returns the exit code, the standard output, and the standard error.
fn run(bench: &Bench, args: &[&str]) -> (Option<i32>, String, String) {
    let output = bench.command(args).env("OMP_NUM_THREADS", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Runs `simdino ARGS`, which must succeed, and returns its standard output.
fn ok(bench: &Bench, args: &[&str]) -> String {
    let (code, printed, said) = run(bench, args);
    assert_eq!(code, Some(0), "simdino {args:?}: {said}");
    printed
}

/// Runs `simdino ARGS`, which must fail with the exit code `code`, and returns its standard error.
fn fails(bench: &Bench, code: i32, args: &[&str]) -> String {
    let (found, printed, said) = run(bench, args);
    assert_eq!(found, Some(code), "simdino {args:?}: {printed}{said}");
    assert!(said.contains("simdino: ") && !said.contains("panicked"), "{said}");
    said
}

/// Returns a bench with a run of ten steps, without a probe.
fn trained() -> Bench {
    let bench = Bench::new();
    ok(&bench, &["train", "tiny.yaml", "run.name=a"]);
    bench
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn records(path: &Path) -> Vec<Value> {
    json(path)["evaluations"].as_array().unwrap().clone()
}

#[test]
fn several_networks_are_rows_of_one_table_and_a_bad_one_costs_only_itself() {
    let bench = trained();
    fs::write(bench.path("bad.safetensors"), b"no weights").unwrap();
    fs::copy(bench.path("runs/a/weights/teacher.safetensors"), bench.path("b.safetensors"))
        .unwrap();
    let args = ["eval", "knn", "--k", "5,1", "--out", "out", "--checkpoints", "runs/a"];
    let weights = ["--weights", "bad.safetensors", "--weights", "b.safetensors"];
    let (code, table, said) = run(&bench, &[&args[..], &weights, &SETS].concat());
    assert_eq!(code, Some(1));
    assert!(said.contains("skipped bad.safetensors: "), "{said}");
    assert!(said.contains("could not measure bad.safetensors"), "{said}");
    // The last checkpoint has the same weights as b.safetensors, so both share a record in the
    // file.
    let kept = fs::read_dir(bench.path("runs/a/checkpoints")).unwrap().count() - 1;
    let rows = table.lines().take_while(|line| !line.is_empty());
    assert_eq!(rows.count(), 1 + 1 + kept, "{table}");
    assert!(table.contains("\nknn; 80 training images of 10 classes; "), "{table}");
    let found = records(&bench.path("out/results.json"));
    assert_eq!(found.len(), kept, "{found:?}");
    let steps: Vec<u64> = found.iter().map(|r| r["weights"]["step"].as_u64().unwrap()).collect();
    assert!(steps.contains(&10) && steps.contains(&6), "{steps:?}");
    for record in &found {
        assert_eq!(record["main"], "k5_top1");
        for score in ["metrics", "baselines/untrained", "baselines/pixels"] {
            let score = record.pointer(&format!("/{score}/k5_top1")).and_then(Value::as_f64);
            assert!((0.0..=1.0).contains(&score.unwrap()), "{record}");
        }
        assert_eq!(record["data"][0]["classes"], 10);
        assert!(record["effective_rank"].as_f64() >= record["effective_dimension"].as_f64());
    }
    let rows = fs::read_to_string(bench.path("out/results.csv")).unwrap();
    assert_eq!(rows.lines().count(), 1 + kept * 3 * 4, "two k, top-1 and top-5, of three: {rows}");
    assert!(!bench.path("runs/a/results.json").exists(), "results went elsewhere");
}

#[test]
fn all_protocols_share_features_and_the_report_shows_them() {
    let bench = trained();
    // `linear` is left out because the grid of DINOv2 takes 12,500 steps.
    let all = ["eval", "all", "--weights", "runs/a", "--max-train", "60", "--without", "linear"];
    let text = ok(&bench, &[&all[..], &SETS].concat());
    let folder = bench.path("runs/a");
    let found = records(&folder.join("results.json"));
    let names: Vec<&str> = found.iter().map(|r| r["protocol"].as_str().unwrap()).collect();
    assert_eq!(names, ["knn", "logistic"], "{text}");
    let message = fails(&bench, 2, &[&all[..7], &["nothing"], &SETS].concat());
    assert!(
        message.contains("--without nothing: unknown protocol; the protocols are knn, logistic, "),
        "{message}"
    );
    assert_eq!(found[0]["data"][0]["images"], 60);
    assert!(json(&folder.join("results.json"))["knn"].is_null(), "60 images are not all");

    let linear = ["eval", "linear", "--weights", "runs/a", "--blocks", "1,2", "--epochs", "2"];
    let more = ["--epoch-steps", "30", "--rates", "0.1,1", "--head-batch", "16"];
    let table = ok(&bench, &[&linear[..], &more, &SETS].concat());
    assert!(table.contains("linear; 80 training images of 10 classes"), "{table}");
    let again = ok(&bench, &[&linear[..], &more, &SETS, &["--json"]].concat());
    let again: Value = serde_json::from_str(again.lines().last().unwrap()).unwrap();
    assert_eq!(again["results"]["trained"]["heads"].as_array().unwrap().len(), 8);
    assert!(again["top1"].as_f64().unwrap() > 0.2, "{again}");
    let holdout =
        [&linear[..], &more, &SETS, &["--holdout", "--skip-untrained", "--fresh"]].concat();
    ok(&bench, &holdout);
    let found = records(&folder.join("results.json"));
    let linear: Vec<&Value> = found
        .iter()
        .filter(|r| r["protocol"] == "linear" && r["settings"]["epochs"] == 2)
        .collect();
    assert_eq!(linear.len(), 2, "the repeated one replaced the first");
    assert_eq!(linear[0]["metrics"]["top1"], again["top1"]);
    assert!(linear[0]["baselines"]["untrained"]["top1"].is_number());
    assert!(
        linear[1]["baselines"]["untrained"].is_null() && linear[1]["settings"]["fresh"] == true
    );
    let left = fs::read_dir(folder.join("features")).unwrap();
    let left =
        left.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with("linear"));
    assert_eq!(left.count(), 0, "a finished probe leaves no state");

    ok(&bench, &["report", "runs/a"]);
    let page = fs::read_to_string(folder.join("report.html")).unwrap();
    assert!(page.contains("<h2>Evaluations</h2>") && page.contains("<td>logistic</td>"));
    ok(&bench, &["train", "tiny.yaml", "run.name=b", "train.batch_size=8"]);
    let said = ok(&bench, &["report", "runs/a", "runs/b", "--out", "both.html"]);
    assert_eq!(said.trim(), "both.html");
    let page = fs::read_to_string(bench.path("both.html")).unwrap();
    assert!(page.contains("<h1>a, b</h1>") && page.contains("<td>train.batch_size</td>"));
}

#[test]
fn processes_share_the_extraction_and_the_first_one_evaluates() {
    let bench = trained();
    let knn = [&["eval", "knn", "--weights", "runs/a", "--k", "1"][..], &SETS].concat();
    let [first, second] = bench.two_processes(&knn);
    assert!(first.status.success() && second.status.success(), "{}", stderr(&first));
    assert!(second.stdout.is_empty());
    assert_eq!(String::from_utf8(first.stdout).unwrap(), ok(&bench, &knn));

    let all = [&["eval", "all", "--weights", "runs/a"][..], &SETS].concat();
    let [first, _] = bench.two_processes(&all);
    let said = stderr(&first);
    assert!(first.status.code() == Some(2) && said.contains("without torchrun"), "{said}");
}

#[test]
fn few_images_of_each_class_are_drawn() {
    let bench = trained();
    let args =
        ["eval", "knn", "--weights", "runs/a", "--k", "1", "--shots", "1,100", "--tries", "3"];
    let (code, text, said) = run(&bench, &[&args[..], &SETS].concat());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("classes have fewer than 100 training images"), "{said}");
    assert!(text.contains("1-shot, k = 1: ") && text.contains("+/- 0.0%"), "{text}");
    let record = &records(&bench.path("runs/a/results.json"))[0];
    let score = |name: &str| record["metrics"][name].as_f64().unwrap();
    assert_eq!(score("shots100_k1_top1"), score("k1_top1"), "all images of every class");
    assert!(score("shots1_k1_top1") < score("k1_top1"));
    let several = ok(&bench, &[&args[..], &["--weights", "runs/a"], &SETS].concat());
    assert_eq!(several.matches("shots100_k1_top1").count(), 2, "{several}");
    for (option, value) in
        [("--shots", "0"), ("--tries", "0"), ("--k", "0"), ("--temperature", "0")]
    {
        let few: &[&str] = if option == "--tries" { &["--shots", "1"] } else { &[] };
        let message = fails(&bench, 2, &[&args[..4], &[option, value], few, &SETS].concat());
        assert!(message.contains(&format!("{option}: ")), "{message}");
    }
    let args = ["eval", "logistic", "--weights", "runs/a", "--c", "1", "--shots", "1,100"];
    let text = ok(&bench, &[&args[..], &["--tries", "3"], &SETS].concat());
    let all = records(&bench.path("runs/a/results.json"));
    let score = |of: &str, name: &str| all[1][of][name].as_f64().unwrap();
    assert!(text.contains("shots1_top1_std"), "{text}");
    assert_eq!(score("metrics", "shots100_top1_std"), 0.0, "all images of every class");
    assert!(score("metrics", "shots1_top1") < score("metrics", "shots100_top1"), "{all:?}");
    assert!(all[1]["baselines"]["untrained"]["shots1_top5"].is_number());
}

/// Creates a class folder for each name, with the given number of images.
fn classes(bench: &Bench, folder: &str, names: &[(&str, usize)]) {
    let images = fs::read_dir(bench.path("images/images")).unwrap().flat_map(|class| {
        fs::read_dir(class.unwrap().path()).unwrap().map(|image| image.unwrap().path())
    });
    let images: Vec<_> = images.collect();
    let mut next = images.iter().cycle();
    for &(name, count) in names {
        let class = bench.path(folder).join(name);
        fs::create_dir_all(&class).unwrap();
        for _ in 0..count {
            let image = next.next().unwrap();
            fs::copy(image, class.join(image.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn bad_input_is_a_sentence_or_a_right_result() {
    let bench = trained();
    classes(&bench, "cats", &[("cat", 5)]);
    let cats: Vec<_> = fs::read_dir(bench.path("cats/cat")).unwrap().map(Result::unwrap).collect();
    let list = |name: &str, count: usize| {
        let line = |cat: &fs::DirEntry| format!("{},cat\n", cat.path().display());
        let lines: String = cats.iter().take(count).map(line).collect();
        fs::write(bench.path(name), format!("path,label\n{lines}")).unwrap();
    };
    list("one_class.csv", 5);
    list("one_image.csv", 1);
    classes(&bench, "two", &[("cat", 6), ("dog", 6), ("empty", 0)]);
    classes(&bench, "test", &[("cat", 1), ("dog", 2)]);
    classes(&bench, "other", &[("horse", 3), ("cow", 1)]);
    classes(&bench, "unlabeled", &[("", 4)]);
    let steps = ["--epochs", "1", "--epoch-steps", "3", "--blocks", "1"];
    for (protocol, options) in
        [("knn", &[][..]), ("logistic", &["--c", "1"][..]), ("linear", &steps[..])]
    {
        let args = |train, test| {
            let weights = ["eval", protocol, "--weights", "runs/a", "--device", "cpu"];
            [&weights[..], &["--train", train, "--test", test], options].concat()
        };
        for (train, test, sentence) in [
            ("unlabeled", "test", "the training images have no labels"),
            ("cats", "test", "the training images have no labels"),
            ("two", "unlabeled", "the test images have no labels"),
            ("one_class.csv", "test", "the 5 labeled training images all belong to one class"),
            ("one_image.csv", "test", "the 1 labeled training images all belong to one class"),
            (
                "two",
                "other",
                "the test set has classes that the training set does not have: cow, horse",
            ),
        ] {
            let message = fails(&bench, 1, &args(train, test));
            assert!(message.contains(sentence), "{protocol}: {message}");
        }
        // An empty class folder does not count as a class.
        ok(&bench, &args("two", "test"));
        ok(&bench, &args("two", "one_image.csv"));
        let found = records(&bench.path("runs/a/results.json"));
        let last = found.last().unwrap();
        assert_eq!(
            (&last["data"][0]["classes"], &last["data"][1]["images"]),
            (&2.into(), &1.into())
        );
    }
}

#[test]
fn wrong_networks_and_damaged_results_are_named() {
    let bench = trained();
    classes(&bench, "two", &[("cat", 6), ("dog", 6)]);
    let message = bench
        .fails(1, &["eval", "knn", "--checkpoints", "images", "--train", "two", "--test", "two"]);
    assert!(message.contains("images: no checkpoints found"), "{message}");
    let deep = ["eval", "linear", "--weights", "runs/a", "--blocks", "99"];
    let message = fails(&bench, 1, &[&deep[..], &SETS].concat());
    assert!(message.contains("heads on the last 99 blocks do not fit"), "{message}");
    fs::write(bench.path("runs/a/results.json"), "{").unwrap();
    let message = fails(&bench, 1, &[&["eval", "knn", "--weights", "runs/a"][..], &SETS].concat());
    assert!(message.contains("runs/a/results.json: the file is damaged"), "{message}");
    assert_eq!(fs::read_to_string(bench.path("runs/a/results.json")).unwrap(), "{");
}

#[test]
fn a_run_keeps_its_table_and_may_be_one_that_cannot_be_written_to() {
    let bench = trained();
    let folder = bench.path("runs/a");
    ok(&bench, &[&["eval", "knn", "--weights", "runs/a"][..], &SETS].concat());
    let file = folder.join("results.json");
    let table = json(&file)["knn"].clone();
    // A measurement of fewer images does not replace the table at the top of the report.
    let other = ["eval", "knn", "--weights", "runs/a", "--max-train", "20", "--k", "1"];
    ok(&bench, &[&other[..], &SETS].concat());
    assert!(table["scores"].is_array() && json(&file)["knn"] == table);
    // Neither does one of weights older than the newest checkpoint, nor any if the table is that of
    // the training. Another measurement of all images does.
    let of_all = [&["eval", "knn", "--weights", "runs/a", "--k", "1"][..], &SETS].concat();
    let later = folder.join("checkpoints/step-99999999");
    fs::create_dir_all(&later).unwrap();
    ok(&bench, &of_all);
    assert_eq!(json(&file)["knn"], table);
    fs::remove_dir(&later).unwrap();
    let mut results = json(&file);
    results["of_training"] = true.into();
    fs::write(&file, results.to_string()).unwrap();
    ok(&bench, &of_all);
    assert_eq!(json(&file)["knn"], table);
    results["of_training"] = false.into();
    fs::write(&file, results.to_string()).unwrap();
    ok(&bench, &of_all);
    assert_eq!(json(&file)["knn"]["scores"].as_array().unwrap().len(), 1);

    // A file simulates a folder that is not writable, because root can write to any folder.
    fs::rename(folder.join("features"), bench.path("kept")).unwrap();
    fs::write(folder.join("features"), "").unwrap();
    let (code, _, said) = run(&bench, &[&other[..], &SETS].concat());
    assert!(code == Some(0) && said.contains("choose another folder with --features"), "{said}");
    let (code, _, said) = run(&bench, &[&other[..], &SETS, &["--out", "/proc/out"]].concat());
    assert!(code == Some(1) && said.contains("cannot write the results here"), "{said}");
}

#[test]
fn all_processes_measure_the_table_at_the_end_of_a_run() {
    let bench = Bench::new();
    let sets = ["probe.train_path=images/images", "probe.test_path=images/images"];
    let args = [&["train", "tiny.yaml", "run.name=two", "probe.k=3"][..], &sets].concat();
    let [first, second] = bench.two_processes(&args);
    let said = [stderr(&first), stderr(&second)];
    assert!(first.status.success() && second.status.success(), "{said:?}");
    let of_training = json(&bench.path("runs/two/results.json"));
    assert_eq!(
        (&of_training["of_training"], &of_training["knn"]["num_train"]),
        (&true.into(), &80.into())
    );
    let knn = ["eval", "knn", "--weights", "runs/two", "--k", "3", "--train", "images/images"];
    let args = [&knn[..], &["--test", "images/images", "--out", "other"]].concat();
    ok(&bench, &args);
    let alone = &records(&bench.path("other/results.json"))[0];
    for (table, scores) in [
        ("knn", &alone["metrics"]),
        ("untrained", &alone["baselines"]["untrained"]),
        ("pixels", &alone["baselines"]["pixels"]),
    ] {
        assert_eq!(of_training[table]["scores"][0]["top1"], scores["k3_top1"], "{table}");
    }
}
