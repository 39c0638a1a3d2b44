//! `metrics.csv`: the records of a run as one table, for spreadsheets and data frames.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Record, read_jsonl};
use crate::error::{Error, Result};

/// Writes the records of `jsonl` to `csv`: one row per step, and one column per name in the order
/// in which names first occur. Records of the same step share a row; a missing or non-finite value
/// leaves its cell empty.
///
/// # Errors
/// Returns an error if a file cannot be read or written.
pub fn write_csv(jsonl: &Path, csv: &Path) -> Result<()> {
    let table = table(&read_jsonl(jsonl)?);
    base::write_atomic(csv, table.as_bytes()).map_err(Error::io(csv, "write the table"))
}

fn table(records: &[Record]) -> String {
    let mut names: Vec<&str> = Vec::new();
    let mut rows: BTreeMap<u64, (f64, BTreeMap<&str, f64>)> = BTreeMap::new();
    for record in records {
        let (epoch, row) = rows.entry(record.step).or_default();
        *epoch = record.epoch;
        for (name, value) in &record.values {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
            row.insert(name, *value);
        }
    }
    let mut table = String::from("step,epoch");
    for name in &names {
        table.push(',');
        table.push_str(&quoted(name));
    }
    table.push('\n');
    for (step, (epoch, row)) in &rows {
        table.push_str(&format!("{step},{}", cell(Some(epoch))));
        for name in &names {
            table.push(',');
            table.push_str(&cell(row.get(name)));
        }
        table.push('\n');
    }
    table
}

fn cell(value: Option<&f64>) -> String {
    value.filter(|value| value.is_finite()).map(f64::to_string).unwrap_or_default()
}

/// Quotes a name that contains a separator, as in RFC 4180.
fn quoted(name: &str) -> String {
    if name.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{JsonlSink, Sink};

    fn record(step: u64, values: &[(&str, f64)]) -> Record {
        let values = values.iter().map(|&(name, value)| (name.to_owned(), value)).collect();
        Record { step, epoch: step as f64 * 0.5, values }
    }

    #[test]
    fn columns_are_the_union() {
        let dir = tempfile::tempdir().unwrap();
        let (jsonl, csv) = (dir.path().join("metrics.jsonl"), dir.path().join("metrics.csv"));
        let mut sink = JsonlSink::open(&jsonl, None).unwrap();
        for record in [
            record(0, &[("probe/knn_top1", 0.25)]),
            record(1, &[("loss/total", -0.5), ("optim/lr", 1e-3)]),
            record(2, &[("loss/total", f64::NAN), ("odd,\"name\"", 2.0)]),
            record(2, &[("probe/knn_top1", 0.5)]),
        ] {
            sink.write(&record).unwrap();
        }
        write_csv(&jsonl, &csv).unwrap();
        assert_eq!(
            std::fs::read_to_string(&csv).unwrap(),
            "step,epoch,probe/knn_top1,loss/total,optim/lr,\"odd,\"\"name\"\"\"\n\
             0,0,0.25,,,\n\
             1,0.5,,-0.5,0.001,\n\
             2,1,0.5,,,2\n"
        );
    }
}
