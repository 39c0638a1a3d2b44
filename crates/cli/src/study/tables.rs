//! Writes the files of a study: `study.csv`, `study.json`, `study.html`, and `study.svg`.

use std::path::Path;

use base::write_atomic;
use report::study::{Row, Study};
use serde_json::json;

use super::grid::Grid;
use crate::failure::{Context, Result};

/// The name of a column, and the number that it shows of a row.
type Column = (&'static str, fn(&Row) -> Option<f64>);

const NUMBERS: [Column; 13] = [
    ("knn", |row| row.knn),
    ("untrained", |row| row.untrained),
    ("pixels", |row| row.pixels),
    ("similarity", |row| row.similarity),
    ("position", |row| row.position),
    ("least_position", |row| row.least_position),
    ("coeff", |row| row.coeff),
    ("effective_rank", |row| row.effective_rank),
    ("img_s", |row| row.images_per_second),
    ("seconds", |row| row.seconds),
    ("logistic", |row| row.logistic),
    ("miou", |row| row.miou),
    ("probe_rank", |row| row.probe_rank),
];

/// Writes the files into the folder `out`; `study.svg` only if there is something to draw.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub fn write(out: &Path, name: &str, grid: &Grid, rows: &[Row]) -> Result<()> {
    let study = Study { name: name.to_owned(), axes: grid.axes.clone(), rows: rows.to_vec() };
    let json = json!({ "name": name, "base": grid.base, "axes": grid.axes, "rows": rows });
    let files = [
        ("study.csv", csv(grid, rows)),
        ("study.json", format!("{json:#}\n")),
        ("study.html", study.html()),
    ];
    for (file, text) in files.into_iter().chain(study.svg().map(|drawing| ("study.svg", drawing))) {
        let path = out.join(file);
        write_atomic(&path, text.as_bytes())
            .context(|| format!("{}: cannot write the file", path.display()))?;
    }
    Ok(())
}

fn csv(grid: &Grid, rows: &[Row]) -> String {
    let mut head: Vec<&str> = vec!["run", "method"];
    head.extend(grid.axes.iter().map(String::as_str));
    head.extend(["seed", "status", "collapsed"]);
    head.extend(NUMBERS.iter().map(|(name, _)| *name));
    head.push("message");
    let mut text = line(head.into_iter().map(str::to_owned));
    for row in rows {
        let mut cells = vec![row.run.clone(), row.method.clone()];
        cells.extend(grid.axes.iter().map(|axis| row.value(axis).unwrap_or_default().to_owned()));
        cells.extend([row.seed.to_string(), row.status.clone()]);
        cells.push(row.collapsed.map(|yes| yes.to_string()).unwrap_or_default());
        let numbers = NUMBERS.iter().map(|(_, of)| of(row));
        cells.extend(numbers.map(|x| x.map(|x| x.to_string()).unwrap_or_default()));
        cells.push(row.message.clone());
        text += &line(cells.into_iter());
    }
    text
}

fn line(cells: impl Iterator<Item = String>) -> String {
    let quoted = cells.map(|cell| match cell.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    });
    quoted.collect::<Vec<_>>().join(",") + "\n"
}
