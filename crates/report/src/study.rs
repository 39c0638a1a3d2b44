//! A page that summarizes a study: many runs of one recipe with different settings.

mod row;

use super::chart::{Chart, MOST_LINES, Series};
use super::heat::{Cell, HeatMap};
use super::markup::{escape, section, table};
use super::scale::{fixed, percent};
use super::spread::Spread;
use super::{document, markup};
pub use row::Row;

/// Number of intervals that the curve of a method over the training is averaged in.
const STEPS: usize = 20;

/// The name of a column, and a function that returns its cell for a run.
type Column = (&'static str, fn(&Row) -> Option<String>);

/// Columns of probes; each is shown only if at least one run has a value.
const PROBES: [Column; 3] = [
    ("logistic", |row| row.logistic.map(|x| percent(x, 1))),
    ("mIoU", |row| row.miou.map(|x| percent(x, 1))),
    ("rank (probe)", |row| row.probe_rank.map(|x| format!("{x:.1}"))),
];

/// A study.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Study {
    /// Name of the study.
    pub name: String,
    /// Keys of the axes.
    pub axes: Vec<String>,
    /// The runs.
    pub rows: Vec<Row>,
}

impl Study {
    /// Renders the study as one self-contained HTML page.
    pub fn html(&self) -> String {
        let parts = [
            self.header(),
            section("methods", "Methods", &self.worst_and_best()),
            section(
                "axes",
                "Each setting",
                &format!("<div class=\"charts\">{}</div>", self.lines()),
            ),
            section("maps", "Pairs of settings", &self.maps()),
            section("runs", "All runs", &self.table()),
        ];
        document(&self.name, &parts.concat())
    }

    fn header(&self) -> String {
        let count = |status: &str| self.rows.iter().filter(|row| row.status == status).count();
        format!(
            "<p class=\"kind\">Study</p><h1>{}</h1><p class=\"lead\">{} runs: {} done, {} failed, \
             {} unfinished or not started. Accuracies are those of k-NN on frozen features at the \
             end of each run; means are over all runs that share the setting, and &plusmn; is one \
             standard deviation.</p>\n",
            escape(&self.name),
            self.rows.len(),
            count("done"),
            count("failed"),
            count("unfinished") + count("not started"),
        )
    }

    fn methods(&self) -> Vec<&str> {
        distinct(self.rows.iter().map(|row| row.method.as_str()))
    }

    fn done<'a>(&'a self, method: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.method == method && row.status == "done")
    }

    /// Returns the distinct values on an axis, sorted if all are numbers.
    fn values(&self, axis: &str) -> Vec<&str> {
        let mut values = distinct(self.rows.iter().filter_map(|row| row.value(axis)));
        if values.iter().all(|value| value.parse::<f64>().is_ok()) {
            let number = |value: &&str| value.parse::<f64>().unwrap_or(f64::NAN);
            values.sort_by(|a, b| number(a).total_cmp(&number(b)));
        }
        values
    }

    /// Returns tables that compare the worst run with the best one, per method and per value of
    /// each axis.
    fn worst_and_best(&self) -> String {
        let head = [
            "method",
            "runs",
            "collapsed",
            "k-NN mean",
            "worst",
            "best",
            "worst / best",
            "position",
        ];
        let all: Vec<Vec<String>> = self
            .methods()
            .into_iter()
            .map(|method| line(method.to_owned(), &self.done(method).collect::<Vec<_>>()))
            .collect();
        let mut html = table(&head, &all);
        for axis in &self.axes {
            let mut lines = Vec::new();
            for value in self.values(axis) {
                for method in self.methods() {
                    let rows: Vec<&Row> =
                        self.done(method).filter(|row| row.value(axis) == Some(value)).collect();
                    if !rows.is_empty() {
                        lines.push(line(format!("{value}, {method}"), &rows));
                    }
                }
            }
            // None of the finished runs has a value on this axis.
            if lines.is_empty() {
                continue;
            }
            let head: Vec<&str> =
                std::iter::once(axis.as_str()).chain(head[1..].to_vec()).collect();
            html += &table(&head, &lines);
        }
        html
    }

    /// Draws charts of the k-NN accuracy over each axis of positive numbers, and over the training.
    fn lines(&self) -> String {
        let over_axes = self.axes.iter().filter_map(|axis| self.chart_of(axis));
        over_axes.chain(self.training()).filter_map(|chart| chart.to_html()).collect()
    }

    fn chart_of(&self, axis: &str) -> Option<Chart> {
        let values = self.values(axis);
        let numbers: Vec<f64> = values.iter().filter_map(|value| value.parse().ok()).collect();
        let positive = numbers.len() == values.len() && numbers.iter().all(|&x| x > 0.0);
        if !positive || numbers.len() < 2 {
            return None;
        }
        let series = self.methods().into_iter().take(MOST_LINES).map(|method| {
            let at = |(value, x): (&&str, &f64)| {
                let rows = self.done(method).filter(|row| row.value(axis) == Some(value));
                Some((x.log2(), Spread::of(rows.filter_map(|row| row.knn))?.mean))
            };
            let points = values.iter().zip(&numbers).filter_map(at).collect();
            Series { name: method.to_owned(), points }
        });
        Some(Chart {
            title: format!("k-NN by {axis}"),
            note: "accuracy, mean over all other settings and seeds".into(),
            x_label: axis.to_owned(),
            series: series.filter(|series| !series.points.is_empty()).collect(),
            x_is_log2: true,
            ..Chart::default()
        })
    }

    fn training(&self) -> Option<Chart> {
        let series = self.methods().into_iter().take(MOST_LINES).map(|method| {
            let at = |i: usize| {
                let (low, high) =
                    ((i as f64 - 0.5) / STEPS as f64, (i as f64 + 0.5) / STEPS as f64);
                let near = self.done(method).filter_map(|row| {
                    let inside = |&&(x, _): &&(f64, f64)| x >= low && x < high;
                    Spread::of(row.curve.iter().filter(inside).map(|p| p.1)).map(|knn| knn.mean)
                });
                Some((i as f64 / STEPS as f64, Spread::of(near)?.mean))
            };
            Series { name: method.to_owned(), points: (0..=STEPS).filter_map(at).collect() }
        });
        let series: Vec<Series> = series.filter(|series| series.points.len() > 1).collect();
        (!series.is_empty()).then(|| Chart {
            title: "k-NN during training".into(),
            note: "accuracy, mean over all settings and seeds".into(),
            x_label: "fraction of training".into(),
            series,
            ..Chart::default()
        })
    }

    /// Draws a heat map for each method and each pair of axes.
    fn maps(&self) -> String {
        let axes: Vec<&str> = self
            .axes
            .iter()
            .map(String::as_str)
            .filter(|axis| self.values(axis).len() > 1)
            .collect();
        let mut html = String::from(
            "<p>Each cell shows the mean k-NN accuracy and, below it, the worst; orange cells \
             contain a collapsed run.</p>\n",
        );
        for (i, x) in axes.iter().enumerate() {
            for y in &axes[i + 1..] {
                let maps: String =
                    self.methods().iter().filter_map(|method| self.map(method, x, y)).collect();
                html += &format!("<div class=\"charts\">{maps}</div>\n<p></p>\n");
            }
        }
        html
    }

    fn map(&self, method: &str, x: &str, y: &str) -> Option<String> {
        let all = Spread::of(self.rows.iter().filter_map(|row| row.knn))?;
        let (columns, rows) = (self.values(x), self.values(y));
        let mut cells = Vec::new();
        for (i, column) in columns.iter().enumerate() {
            for (j, line) in rows.iter().enumerate() {
                let here = |row: &&Row| row.value(x) == Some(column) && row.value(y) == Some(line);
                let found: Vec<&Row> = self.done(method).filter(here).collect();
                cells.extend(cell((i, j), &found, all.least));
            }
        }
        let words = |list: Vec<&str>| list.into_iter().map(str::to_owned).collect();
        let map = HeatMap {
            title: format!("{method}: k-NN"),
            x: (x.to_owned(), words(columns)),
            y: (y.to_owned(), words(rows)),
            range: (all.least, all.most),
            cells,
        };
        (!map.cells.is_empty()).then(|| map.to_html())
    }

    fn table(&self) -> String {
        let mut head = vec!["run"];
        head.extend([
            "status",
            "k-NN",
            "similarity",
            "position",
            "least",
            "rank",
            "collapsed",
            "img/s",
            "s",
        ]);
        let number = |x: Option<f64>, digits: usize| x.map_or("-".into(), |x| fixed(x, digits));
        let cells = |row: &Row| {
            let status = match row.status.as_str() {
                "failed" => format!("failed: {}", row.message),
                status => status.to_owned(),
            };
            vec![
                row.run.clone(),
                status,
                row.knn.map_or("-".into(), |x| percent(x, 1)),
                number(row.similarity, 3),
                number(row.position, 2),
                number(row.least_position, 2),
                number(row.effective_rank, 1),
                row.collapsed.map_or("-".into(), |yes| if yes { "yes" } else { "no" }.into()),
                number(row.images_per_second, 0),
                number(row.seconds, 1),
            ]
        };
        let mut rows: Vec<Vec<String>> = self.rows.iter().map(cells).collect();
        for (name, of) in PROBES {
            if self.rows.iter().any(|row| of(row).is_some()) {
                head.push(name);
                let cells = self.rows.iter().map(|row| of(row).unwrap_or_else(|| "-".into()));
                rows.iter_mut().zip(cells).for_each(|(row, cell)| row.push(cell));
            }
        }
        markup::table(&head, &rows)
    }
}

/// Returns the cell of a heat map with the runs `rows`; `None` if they have no k-NN accuracy and none
/// collapsed. Collapsed runs without an accuracy have the color of `least`.
fn cell(at: (usize, usize), rows: &[&Row], least: f64) -> Option<Cell> {
    let knn = Spread::of(rows.iter().filter_map(|row| row.knn));
    let collapsed = rows.iter().filter(|row| row.collapsed == Some(true)).count();
    if knn.is_none() && collapsed == 0 {
        return None;
    }
    let remark = match &knn {
        _ if collapsed > 0 => format!("{collapsed}/{} collapsed", rows.len()),
        Some(knn) if knn.count > 1 => format!("worst {}", percent(knn.least, 1)),
        _ => String::new(),
    };
    Some(Cell {
        at,
        value: knn.as_ref().map_or(least, |knn| knn.mean),
        text: knn.map_or_else(|| "-".into(), |knn| percent(knn.mean, 1)),
        remark,
        bad: collapsed > 0,
    })
}

/// Returns the cells of a group of runs: their number, how many collapsed, their mean, worst, and
/// best k-NN accuracy, and the position of their coding rate.
fn line(name: String, rows: &[&Row]) -> Vec<String> {
    let knn = Spread::of(rows.iter().filter_map(|row| row.knn));
    let position = Spread::of(rows.iter().filter_map(|row| row.position));
    let collapsed = rows.iter().filter(|row| row.collapsed == Some(true)).count();
    let of = |value: Option<f64>| value.map_or("-".into(), |x| percent(x, 1));
    vec![
        name,
        rows.len().to_string(),
        collapsed.to_string(),
        knn.as_ref().map_or("-".into(), Spread::shown),
        of(knn.as_ref().map(|knn| knn.least)),
        of(knn.as_ref().map(|knn| knn.most)),
        of(knn.as_ref().map(|knn| knn.least / knn.most)),
        position.as_ref().map_or("-".into(), Spread::shown),
    ]
}

/// Returns each distinct item once, in the order of first occurrence.
fn distinct<'a>(items: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for item in items {
        if !found.contains(&item) {
            found.push(item);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(method: &str, batch: &str, lr: &str, knn: f64, collapsed: bool) -> Row {
        Row {
            run: format!("{method}_{batch}_{lr}"),
            method: method.into(),
            cell: vec![("batch".into(), batch.into()), ("lr".into(), lr.into())],
            status: "done".into(),
            knn: Some(knn),
            collapsed: Some(collapsed),
            curve: vec![(0.0, 0.1), (1.0, knn)],
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
}
