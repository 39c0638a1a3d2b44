//! Feature files: `.npy`, `.safetensors`, and `.csv`.

mod labels;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use ndarray::Array2;
use ndarray_npy::ReadNpyError;
use tch::{Kind, Tensor};

use crate::error::{Error, Result, invalid, unreadable, unwritten};
use crate::features::FeatureSet;

/// A file format for features, determined by the file name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeatureFormat {
    /// A NumPy array.
    Npy,
    /// The tensor `features`.
    Safetensors,
    /// The columns `name`, `label`, `class`, `f0`, `f1`, ..
    Csv,
}

impl FeatureFormat {
    /// Returns the format of a file with this name, or `None` if its extension is unknown.
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "npy" => Some(Self::Npy),
            "safetensors" => Some(Self::Safetensors),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }
}

/// Reads features written by [`write_features`] or any other program, as `[n, D]` in double
/// precision.
///
/// A NumPy array contains float32 or float64. A safetensors file has a tensor `features`, or a
/// single tensor. A CSV file has a header and numbers in the columns `f0`, `f1`, ..; other columns
/// are ignored.
///
/// # Errors
/// Returns an error that names the file if it cannot be read, its name indicates no supported
/// format ([`Error::FeatureFormat`]), it contains no table of numbers, or not all numbers are
/// finite.
pub fn read_features(path: &Path) -> Result<Tensor> {
    if !path.is_file() {
        return Err(invalid(path, "no such file".to_owned()));
    }
    let unknown = || Error::FeatureFormat { path: path.to_owned() };
    let table = match FeatureFormat::of(path).ok_or_else(unknown)? {
        FeatureFormat::Npy => npy(path)?,
        FeatureFormat::Safetensors => {
            only(path, model::weights::read_safetensors(path).map_err(Error::Tensors)?.tensors)?
        }
        FeatureFormat::Csv => csv(path)?,
    };
    if table.dim() != 2 || table.numel() == 0 {
        let got = table.size();
        return Err(invalid(path, format!("expected features of shape [n, d] (got {got:?})")));
    }
    let table = table.to_kind(Kind::Double);
    if f64::try_from(table.isfinite().all())? == 0.0 {
        return Err(invalid(path, "contains numbers that are not finite".to_owned()));
    }
    Ok(table)
}

/// Reads features with the names, labels, and classes of their images, as written by
/// [`write_features`]: for CSV from the file itself, for the other formats from `NAME.names.csv`
/// next to it. For NumPy and safetensors, labels may also be in `NAME.labels.npy`, int64 with one
/// label per row and -1 for none. Without any of these, no image has a label.
///
/// Features are in single precision. Classes with names are renumbered in the order of their
/// labels; evaluations match them by name.
///
/// # Errors
/// Returns an error that names the file under the conditions of [`read_features`], and if labels
/// cannot be read or contradict each other, their number does not match that of the features, or a
/// feature is too large for single precision.
pub fn read_feature_set(path: &Path) -> Result<FeatureSet> {
    let features = read_features(path)?.to_kind(Kind::Float);
    if f64::try_from(features.isfinite().all())? == 0.0 {
        return Err(invalid(path, "contains numbers that are too large for float32".to_owned()));
    }
    let rows = features.size()[0] as usize;
    let is_table = FeatureFormat::of(path) == Some(FeatureFormat::Csv);
    let Some(found) = labels::read(path, is_table)? else {
        return Ok(FeatureSet::new(features, vec![None; rows]));
    };
    let labels = found.labels.len();
    if labels != rows {
        return Err(invalid(path, format!("has {rows} rows, but there are labels for {labels}")));
    }
    let mut set = FeatureSet::new(features, found.labels);
    (set.names, set.class_names) = (found.names, found.class_names);
    Ok(set)
}

/// Writes features atomically, creating the folder if needed. Names, labels, and classes are in the
/// same file for CSV, and otherwise in `NAME.names.csv` next to it.
///
/// # Errors
/// Returns an error if the name indicates no supported format or writing fails.
pub fn write_features(path: &Path, set: &FeatureSet) -> Result<()> {
    let format = FeatureFormat::of(path);
    let format = format.ok_or_else(|| Error::FeatureFormat { path: path.to_owned() })?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        fs::create_dir_all(parent).map_err(unwritten(path))?;
    }
    match format {
        FeatureFormat::Csv => {
            return base::write_atomic(path, table(set)?.as_bytes()).map_err(unwritten(path));
        }
        FeatureFormat::Npy => {
            base::replace_atomic(path, |unfinished| set.features.write_npy(unfinished))
                .map_err(unwritten(path))?;
        }
        FeatureFormat::Safetensors => {
            let tensors = [("features".to_owned(), set.features.shallow_clone())];
            model::weights::write_safetensors(path, &tensors, &BTreeMap::new())
                .map_err(Error::Tensors)?;
        }
    }
    let beside = path.with_extension("names.csv");
    base::write_atomic(&beside, names(set).as_bytes()).map_err(unwritten(&beside))
}

/// Reads a NumPy array with two dimensions, in single or double precision.
fn npy(path: &Path) -> Result<Tensor> {
    let table: Array2<f64> = match ndarray_npy::read_npy::<_, Array2<f32>>(path) {
        Ok(table) => table.mapv(f64::from),
        Err(ReadNpyError::WrongDescriptor(_)) => {
            ndarray_npy::read_npy(path).map_err(unreadable(path))?
        }
        Err(error) => return Err(unreadable(path)(error)),
    };
    let numbers: Vec<f64> = table.iter().copied().collect();
    let (n, d) = table.dim();
    Ok(Tensor::from_slice(&numbers).reshape([n as i64, d as i64]))
}

/// Returns the tensor named `features`, or the only tensor.
fn only(path: &Path, mut tensors: BTreeMap<String, Tensor>) -> Result<Tensor> {
    if let Some(features) = tensors.remove("features") {
        return Ok(features);
    }
    if tensors.len() == 1
        && let Some(tensor) = tensors.into_values().next()
    {
        return Ok(tensor);
    }
    Err(invalid(path, "expected a tensor named 'features', or a single tensor".to_owned()))
}

/// Reads the columns `f0, f1, ..` of a table with a header.
fn csv(path: &Path) -> Result<Tensor> {
    let mut reader = csv::Reader::from_path(path).map_err(unreadable(path))?;
    let columns = feature_columns(path, reader.headers().map_err(unreadable(path))?)?;
    let mut numbers: Vec<f64> = Vec::new();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.map_err(unreadable(path))?;
        rows += 1;
        for &column in &columns {
            let cell = record.get(column).unwrap_or_default();
            let number = cell.parse().map_err(|_| {
                invalid(path, format!("row {rows} contains '{cell}' instead of a number"))
            })?;
            numbers.push(number);
        }
    }
    Ok(Tensor::from_slice(&numbers).reshape([rows, columns.len() as i64]))
}

/// Returns the indices of the columns `f0`, `f1`, .. in the order of their numbers, which may differ
/// from their order in the file.
fn feature_columns(path: &Path, header: &csv::StringRecord) -> Result<Vec<usize>> {
    let number = |name: &str| name.strip_prefix('f')?.parse::<usize>().ok();
    let mut columns: Vec<(usize, usize)> =
        header.iter().zip(0..).filter_map(|(name, i)| Some((number(name)?, i))).collect();
    columns.sort_unstable();
    if columns.is_empty() {
        return Err(invalid(path, "has no feature columns (f0, f1, ...)".to_owned()));
    }
    let wrongly = (0..).zip(&columns).find(|(expected, (number, _))| expected != number);
    if let Some((expected, &(number, _))) = wrongly {
        let problem = match number < expected {
            true => format!("has several columns f{number}: remove all but one"),
            false => format!("has a column f{number} but no f{expected}: number them from f0 on"),
        };
        return Err(invalid(path, problem));
    }
    Ok(columns.into_iter().map(|(_, column)| column).collect())
}

/// Returns the name, label, and class of row `i` as CSV cells.
fn name_cells(set: &FeatureSet, i: usize) -> String {
    let label = set.labels.get(i).copied().flatten();
    let class = label.and_then(|label| set.class_names.get(label as usize));
    let label = label.map(|label| label.to_string()).unwrap_or_default();
    let name = set.names.get(i).map(|name| cell(name)).unwrap_or_default();
    format!("{name},{label},{}", class.map(|class| cell(class)).unwrap_or_default())
}

/// Quotes text that contains a separator, as in RFC 4180.
fn cell(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

fn names(set: &FeatureSet) -> String {
    let rows = (0..set.len()).map(|i| format!("{}\n", name_cells(set, i)));
    std::iter::once("name,label,class\n".to_owned()).chain(rows).collect()
}

fn table(set: &FeatureSet) -> Result<String> {
    let (_, width) = set.features.size2()?;
    let mut text = String::from("name,label,class");
    (0..width).for_each(|i| {
        let _ = write!(text, ",f{i}");
    });
    text.push('\n');
    for (i, row) in set.features.unbind(0).iter().enumerate() {
        text.push_str(&name_cells(set, i));
        let values: Vec<f32> = row.try_into()?;
        values.iter().for_each(|value| {
            let _ = write!(text, ",{value}");
        });
        text.push('\n');
    }
    Ok(text)
}
