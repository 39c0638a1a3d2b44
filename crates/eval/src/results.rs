//! `results.json` and `results.csv`: the results of a run, or of a folder of evaluations.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result, unreadable, unwritten};
use crate::record::Record;

/// Key of the k-NN result among the entries of the file.
const TABLE: &str = "knn";
/// Key of [`crate::KnnTable::of_training`] among the entries of the file.
const OF_TRAINING: &str = "of_training";
/// Key of the records among the entries of the file.
const EVALUATIONS: &str = "evaluations";

/// The contents of `results.json`: [`Record`]s and other entries, such as the k-NN table
/// ([`crate::KnnTable`]) written at the end of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Results {
    entries: Map<String, Value>,
    records: Vec<Record>,
}

impl Results {
    /// Reads the file in `folder`. If it does not exist, there are no results.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be read or is damaged.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("results.json");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(unreadable(&path)(error)),
        };
        let entries = serde_json::from_str(&text);
        Self::from_entries(entries.map_err(|source| damaged(&path, source))?)
            .map_err(|source| damaged(&path, source))
    }

    /// Separates the records from the other contents of a file.
    ///
    /// # Errors
    /// Returns an error if the records do not have the expected form.
    pub fn from_entries(mut entries: Map<String, Value>) -> serde_json::Result<Self> {
        let records = entries.remove(EVALUATIONS);
        let records = records.map(serde_json::from_value).transpose()?.unwrap_or_default();
        Ok(Self { entries, records })
    }

    /// Returns the records, oldest first.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Adds a record. If it [repeats](Record::repeats) an earlier one, it replaces that one and
    /// keeps the baselines that were not measured again.
    ///
    /// # Errors
    /// Fails like [`Record::check`].
    pub fn put(&mut self, mut record: Record) -> Result<()> {
        record.check()?;
        match self.records.iter_mut().find(|old| record.repeats(old)) {
            Some(old) => {
                record.keep_baselines(old);
                *old = record;
            }
            None => self.records.push(record),
        }
        Ok(())
    }

    /// Returns whether there is a k-NN table, such as the one written at the end of a run.
    pub fn has_table(&self) -> bool {
        self.entries.contains_key(TABLE)
    }

    /// Returns whether there is a k-NN table that a training measured at its end.
    pub fn table_is_of_training(&self) -> bool {
        // Tables of earlier versions do not say; most are of trainings.
        self.has_table() && self.entries.get(OF_TRAINING) != Some(&Value::Bool(false))
    }

    /// Sets the entries of `table`, and keeps all other entries.
    ///
    /// # Errors
    /// Returns an error if the table is not a JSON object.
    pub fn set_table(&mut self, table: &impl Serialize) -> Result<()> {
        let value = serde_json::to_value(table);
        let entries = value.and_then(serde_json::from_value::<Map<String, Value>>);
        self.entries.extend(entries.map_err(|error| Error::Setting {
            key: "table",
            problem: format!("must be a JSON object ({error})"),
        })?);
        Ok(())
    }

    /// Removes the k-NN table, for when the network has been trained further.
    pub fn remove_table(&mut self) {
        for key in [TABLE, "untrained", "pixels", "resize", "crop", "precision", OF_TRAINING] {
            self.entries.remove(key);
        }
    }

    /// Writes both files atomically to `folder`, which is created if necessary. Without records,
    /// only `results.json` is written.
    ///
    /// # Errors
    /// Returns an error that names the file if it cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let (json, csv) = (folder.join("results.json"), folder.join("results.csv"));
        fs::create_dir_all(folder).map_err(unwritten(folder))?;
        let text = self.to_json().map_err(unwritten(&json))?;
        base::write_atomic(&json, text.as_bytes()).map_err(unwritten(&json))?;
        if self.records.is_empty() {
            return Ok(());
        }
        let table = self.to_csv().map_err(unwritten(&csv))?;
        base::write_atomic(&csv, &table).map_err(unwritten(&csv))
    }

    fn to_json(&self) -> serde_json::Result<String> {
        let mut entries = self.entries.clone();
        if !self.records.is_empty() {
            entries.insert(EVALUATIONS.to_owned(), serde_json::to_value(&self.records)?);
        }
        Ok(serde_json::to_string_pretty(&entries)? + "\n")
    }

    /// Returns a table with one row for each metric of this network and of each baseline.
    fn to_csv(&self) -> csv::Result<Vec<u8>> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(COLUMNS)?;
        for record in &self.records {
            let before = cells(record);
            for (of, metrics) in record.columns() {
                for (name, value) in metrics {
                    let row = [of.to_owned(), name.clone(), value.to_string()];
                    writer.write_record(before.iter().chain(&row))?;
                }
            }
        }
        writer.into_inner().map_err(|error| error.into_error().into())
    }
}

/// Columns of `results.csv`.
const COLUMNS: [&str; 16] = [
    "protocol",
    "settings",
    "weights",
    "weights_fingerprint",
    "step",
    "data",
    "resize",
    "crop",
    "mask_size",
    "precision",
    "effective_rank",
    "effective_dimension",
    "version",
    "of",
    "metric",
    "value",
];

/// Returns the first cells of all rows of a record.
fn cells(record: &Record) -> [String; 13] {
    let number = |value: Option<u32>| value.map_or_else(String::new, |value| value.to_string());
    let float = |value: Option<f64>| value.map_or_else(String::new, |value| value.to_string());
    let settings = record.settings.iter().map(|(name, value)| format!("{name}={value}"));
    let data = record.data.iter().map(|data| {
        format!("{}={} ({} images, {})", data.role, data.path, data.images, data.fingerprint)
    });
    let joined = |parts: Vec<String>| parts.join(" ");
    [
        record.protocol.clone(),
        joined(settings.collect()),
        record.weights.path.clone(),
        record.weights.fingerprint.clone(),
        record.weights.step.to_string(),
        joined(data.collect()),
        number(record.resize),
        number(record.crop),
        number(record.mask_size),
        record.precision.clone(),
        float(record.effective_rank),
        float(record.effective_dimension),
        record.version.clone(),
    ]
}

/// Updates the results in `folder`. On Unix, other processes that do the same wait if the file
/// system supports locks.
///
/// # Errors
/// Fails like [`Results::read`] and [`Results::write`], and if `change` fails.
pub fn update(folder: &Path, change: impl FnOnce(&mut Results) -> Result<()>) -> Result<()> {
    let _lock = lock(folder);
    let mut results = Results::read(folder)?;
    change(&mut results)?;
    results.write(folder)
}

/// Locks a folder until the returned value is dropped. Without locks, the last writer wins, which
/// loses a record only if two evaluations of a run end at the same moment.
fn lock(folder: &Path) -> Option<File> {
    if !cfg!(unix) {
        return None;
    }
    fs::create_dir_all(folder).ok()?;
    let file = File::open(folder).ok()?;
    file.lock().ok()?;
    Some(file)
}

fn damaged(path: &Path, source: serde_json::Error) -> Error {
    Error::Results { path: path.to_owned(), source }
}
