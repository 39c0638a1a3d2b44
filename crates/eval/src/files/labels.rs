//! Reads the names, labels, and classes of the images whose features are in a file.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array1;

use crate::error::{Result, invalid, unreadable};

/// Names, labels, and classes, one entry per row.
#[derive(Debug, Default)]
pub(super) struct Labels {
    pub(super) names: Vec<String>,
    pub(super) labels: Vec<Option<u32>>,
    pub(super) class_names: Vec<String>,
}

/// Reads the labels for the features in `path`, or returns `None` if there are none. `table` says
/// whether the file itself is a table that may contain them.
pub(super) fn read(path: &Path, table: bool) -> Result<Option<Labels>> {
    let (names, numbers) = (path.with_extension("names.csv"), path.with_extension("labels.npy"));
    match (table, names.is_file(), numbers.is_file()) {
        (true, _, _) => columns(path),
        (_, true, true) => {
            let problem = format!("there is also {}: keep only one of the two", numbers.display());
            Err(invalid(&names, problem))
        }
        (_, true, false) => match columns(&names)? {
            None => Err(invalid(&names, "has neither a 'label' nor a 'name' column".to_owned())),
            found => Ok(found),
        },
        (_, false, true) => array(&numbers).map(Some),
        (_, false, false) => Ok(None),
    }
}

/// Reads `NAME.labels.npy`, where -1 means no label.
fn array(path: &Path) -> Result<Labels> {
    let numbers: Array1<i64> = ndarray_npy::read_npy(path).map_err(unreadable(path))?;
    let label = |&number: &i64| match number {
        -1 => Ok(None),
        _ => u32::try_from(number).map(Some).map_err(|_| {
            invalid(
                path,
                format!(
                    "contains the label {number}: labels must be integers from 0, or -1 for none"
                ),
            )
        }),
    };
    Ok(Labels { labels: numbers.iter().map(label).collect::<Result<_>>()?, ..Labels::default() })
}

/// Reads the columns `name`, `label`, and `class` of a table with a header. Returns `None` if it
/// has neither of the first two.
fn columns(path: &Path) -> Result<Option<Labels>> {
    let mut reader = csv::Reader::from_path(path).map_err(unreadable(path))?;
    let header = reader.headers().map_err(unreadable(path))?;
    let column = |name: &str| header.iter().position(|column| column == name);
    let (name, label, class) = (column("name"), column("label"), column("class"));
    if name.is_none() && label.is_none() {
        return Ok(None);
    }
    let (mut found, mut classes) = (Labels::default(), BTreeMap::new());
    for (row, record) in (1..).zip(reader.records()) {
        let record = record.map_err(unreadable(path))?;
        let cell = |column: Option<usize>| column.and_then(|c| record.get(c)).unwrap_or_default();
        if name.is_some() {
            found.names.push(cell(name).to_owned());
        }
        let number = match cell(label) {
            "" => None,
            text => Some(text.parse::<u32>().map_err(|_| {
                invalid(path, format!("row {row} contains '{text}' instead of an integer label"))
            })?),
        };
        found.labels.push(number);
        if let (Some(number), class) = (number, cell(class))
            && !class.is_empty()
        {
            let known = classes.entry(number).or_insert_with(|| class.to_owned());
            if known != class {
                let problem = format!("label {number} is both '{known}' and '{class}'");
                return Err(invalid(path, problem));
            }
        }
    }
    number_classes(path, &mut found, &classes)?;
    Ok(Some(found))
}

/// Renumbers named classes without gaps, in the order of their labels. Sets are compared by class
/// name, and the names of labels that no row has are unknown.
fn number_classes(path: &Path, found: &mut Labels, classes: &BTreeMap<u32, String>) -> Result<()> {
    if classes.is_empty() {
        return Ok(());
    }
    let places: BTreeMap<u32, u32> = classes.keys().copied().zip(0..).collect();
    for label in found.labels.iter_mut().flatten() {
        *label = *places.get(label).ok_or_else(|| {
            invalid(path, format!("label {label} has no class name, but other labels have one"))
        })?;
    }
    found.class_names = classes.values().cloned().collect();
    let mut sorted = found.class_names.clone();
    sorted.sort();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(invalid(path, format!("class '{}' has two labels", pair[0]))),
        None => Ok(()),
    }
}
