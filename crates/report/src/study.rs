//! A page that summarizes a study: many runs of one recipe with different settings.

mod row;

use super::chart::{Chart, MOST_LINES, Series, svg_of};
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
        let charts: String = self.charts().iter().filter_map(Chart::to_html).collect();
        let parts = [
            self.header(),
            section("methods", "Methods", &self.worst_and_best()),
            section("axes", "Each setting", &format!("<div class=\"charts\">{charts}</div>")),
            self.maps()
                .map_or_else(String::new, |maps| section("maps", "Pairs of settings", &maps)),
            section("runs", "All runs", &self.table()),
        ];
        document(&self.name, &parts.concat())
    }

    /// Draws the charts of the page as one SVG image; `None` if there is nothing to draw.
    pub fn svg(&self) -> Option<String> {
        let charts = self.charts();
        (!charts.is_empty()).then(|| svg_of(&charts))
    }

    fn header(&self) -> String {
        let count = |status: &str| self.rows.iter().filter(|row| row.status == status).count();
        format!(
            "<p class=\"kind\">Study</p><h1>{}</h1><p class=\"lead\">{} run{}: {} done, {} failed, \
             {} unfinished or not started. Accuracies are those of k-NN on frozen features at the \
             end of each run; means are over all runs that share the setting, and &plusmn; is one \
             standard deviation.</p>\n",
            escape(&self.name),
            self.rows.len(),
            if self.rows.len() == 1 { "" } else { "s" },
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

    /// Returns charts of the k-NN accuracy over each axis of positive numbers, and over the
    /// training.
    fn charts(&self) -> Vec<Chart> {
        let over_axes = self.axes.iter().filter_map(|axis| self.chart_of(axis));
        over_axes.chain(self.training()).collect()
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
                let knn = Spread::of(rows.filter_map(|row| row.knn.map(|knn| 100.0 * knn)))?;
                Some((x.log2(), knn))
            };
            let found: Vec<(f64, Spread)> = values.iter().zip(&numbers).filter_map(at).collect();
            Series {
                name: method.to_owned(),
                points: found.iter().map(|(x, knn)| (*x, knn.mean)).collect(),
                ranges: found.iter().map(|(x, knn)| (*x, knn.least, knn.most)).collect(),
            }
        });
        let series: Vec<Series> = series.filter(|series| !series.points.is_empty()).collect();
        // More labels would overlap.
        let ticks = if numbers.len() <= 6 {
            numbers.iter().map(|x| x.log2()).collect()
        } else {
            Vec::new()
        };
        (!series.is_empty()).then(|| Chart {
            title: format!("k-NN by {axis}"),
            note: "accuracy (%), mean and range over all other settings and seeds".into(),
            x_label: axis.to_owned(),
            series,
            x_is_log2: true,
            x_ticks: ticks,
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
                Some((i as f64 / STEPS as f64, 100.0 * Spread::of(near)?.mean))
            };
            let points = (0..=STEPS).filter_map(at).collect();
            Series { name: method.to_owned(), points, ..Series::default() }
        });
        let series: Vec<Series> = series.filter(|series| series.points.len() > 2).collect();
        (!series.is_empty()).then(|| Chart {
            title: "k-NN during training".into(),
            note: "accuracy (%), mean over all settings and seeds".into(),
            x_label: "fraction of training".into(),
            series,
            ..Chart::default()
        })
    }

    /// Draws a heat map for each method and each pair of axes; `None` if there is no pair.
    fn maps(&self) -> Option<String> {
        let axes: Vec<&str> = self
            .axes
            .iter()
            .map(String::as_str)
            .filter(|axis| self.values(axis).len() > 1)
            .collect();
        if axes.len() < 2 {
            return None;
        }
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
        Some(html)
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
mod tests;
