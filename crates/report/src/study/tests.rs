//! Tests of the page of a study.

use super::*;

fn row(method: &str, batch: &str, lr: &str, knn: f64, collapsed: bool) -> Row {
    Row {
        run: format!("{method}_{batch}_{lr}"),
        method: method.into(),
        cell: vec![("batch".into(), batch.into()), ("lr".into(), lr.into())],
        status: "done".into(),
        knn: Some(knn),
        collapsed: Some(collapsed),
        curve: vec![(0.0, 0.1), (0.5, 0.2), (1.0, knn)],
        ..Row::default()
    }
}

#[test]
fn a_page_has_means_spreads_maps_and_every_run() {
    let failed = Row {
        run: "broken".into(),
        method: "b".into(),
        status: "failed".into(),
        message: "no <images>".into(),
        ..Row::default()
    };
    let study = Study {
        name: "a & b".into(),
        axes: vec!["batch".into(), "lr".into()],
        rows: vec![
            row("a", "16", "0.1", 0.4, false),
            row("a", "16", "1", 0.6, false),
            Row { miou: Some(0.123), ..row("a", "64", "0.1", 0.5, true) },
            failed,
        ],
    };
    let page = study.html();
    assert!(page.contains("<title>a &amp; b</title>"));
    assert!(page.contains("50.0% ± 10.0"), "mean and deviation of .4, .5 and .6");
    assert!(page.contains("66.7%"), "the worst against the best");
    assert!(page.contains("1/1 collapsed") && page.contains("var(--c2)"), "the collapsed cell");
    assert!(page.contains("failed: no &lt;images&gt;"));
    assert!(page.contains("mIoU") && page.contains("12.3%"), "a probe has a column");
    assert!(!page.contains("logistic"), "another has none");
    assert!(page.contains("k-NN by batch") && page.contains("k-NN during training"));
    assert!(study.svg().unwrap().contains("class=\"range s1\""), "the range of the seeds");
    let one = Study { axes: vec!["batch".into()], ..study.clone() };
    assert!(page.contains("Pairs of settings") && !one.html().contains("Pairs of settings"));
    assert_eq!(study.values("batch"), ["16", "64"]);
    assert!(!page.contains("NaN"));
}

#[test]
fn collapsed_runs_without_an_accuracy_count() {
    let fallen = |batch| Row { knn: None, ..row("a", batch, "1", 0.0, true) };
    let rows = vec![row("a", "16", "1", 0.4, true), fallen("16"), fallen("64")];
    let rows = [rows, vec![row("a", "64", "0.1", 0.5, false)]].concat();
    let axes = vec!["batch".into(), "lr".into()];
    let page = Study { name: "x".into(), axes, rows }.html();
    assert!(page.contains("2/2 collapsed") && page.contains("1/1 collapsed"), "{page}");
}

#[test]
fn a_study_without_results_is_a_page_too() {
    let axes = vec!["head.prototypes".into()];
    let page = Study { name: "x".into(), axes, ..Study::default() }.html();
    assert!(page.contains("0 runs") && !page.contains("NaN"));
    assert!(!page.contains("<th>head.prototypes"), "a table without a row");
}
