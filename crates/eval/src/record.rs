//! The result of an evaluation, in a common format for all protocols.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use data::Dataset;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, unreadable};
use crate::spectrum::Spread;
use crate::store::short;

/// Metrics by name: scores as fractions from 0 to 1, or errors, where less is better. A name that
/// ends with a unit in parentheses, such as `rmse (m)`, has this unit.
pub type Metrics = BTreeMap<String, f64>;

/// The results of a network under a protocol, and everything that they depend on.
///
/// Two records with the same protocol, settings, sizes, precision, weights, and data are results of
/// the same measurement; see [`Record::repeats`].
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Record {
    /// Name of the protocol, which is the command after `simdino eval`.
    pub protocol: String,
    /// Settings of the protocol by name: all that affect the numbers, including those with default
    /// values.
    pub settings: BTreeMap<String, Value>,
    /// The network.
    pub weights: Weights,
    /// The images.
    pub data: Vec<DataUsed>,
    /// Size of the shorter side after resizing, in pixels.
    pub resize: Option<u32>,
    /// Side of the center crop that the network sees, in pixels.
    pub crop: Option<u32>,
    /// Side of the masks that are compared, in pixels; `None` if masks keep their own sizes, or if
    /// there are no masks.
    pub mask_size: Option<u32>,
    /// Precision of the network: `fp32` or `bf16`.
    pub precision: String,
    /// Name of the main metric, one of [`Self::metrics`].
    pub main: String,
    /// Scores of this network.
    pub metrics: Metrics,
    /// Scores of the baselines that the network must beat, such as `untrained` and `pixels`.
    pub baselines: BTreeMap<String, Metrics>,
    /// Settings that the protocol chose, such as a learning rate, by name.
    pub chosen: BTreeMap<String, Value>,
    /// See [`Spread::effective_rank`].
    pub effective_rank: Option<f64>,
    /// See [`Spread::effective_dimension`].
    pub effective_dimension: Option<f64>,
    /// Version of simdino that measured the results.
    pub version: String,
    /// Notes on how to read the numbers.
    pub notes: Vec<String>,
}

/// The network of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Weights {
    /// The file, checkpoint, or run, as given by the user.
    pub path: String,
    /// See [`crate::store::network_fingerprint`].
    pub fingerprint: String,
    /// Number of training steps; 0 if the file does not state it.
    pub step: u64,
}

/// Images of a [`Record`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct DataUsed {
    /// Role of the images, such as `train`, `test`, or [`TRUTH`].
    pub role: String,
    /// Path of the images, as given by the user.
    pub path: String,
    /// See [`Dataset::fingerprint`].
    pub fingerprint: String,
    /// Number of images used, or of ground-truth files.
    pub images: usize,
    /// Number of classes among them, if they have labels.
    pub classes: Option<usize>,
}

impl DataUsed {
    /// Describes `images` images of `dataset`.
    pub fn new(
        role: &str,
        path: &str,
        dataset: &Dataset,
        images: usize,
        classes: Option<usize>,
    ) -> Self {
        let fingerprint = dataset.fingerprint();
        Self { role: role.to_owned(), path: path.to_owned(), fingerprint, images, classes }
    }
}

impl DataUsed {
    /// Describes `images` files without classes, identified by `fingerprint`.
    pub fn of_files(role: &str, folder: &Path, fingerprint: String, images: usize) -> Self {
        let path = folder.display().to_string();
        Self { role: role.to_owned(), path, fingerprint, images, classes: None }
    }

    /// Describes the ground truth at `path` by the contents of its `files`.
    ///
    /// # Errors
    /// Returns an error that names the file if one cannot be read.
    pub fn truth(path: &Path, files: &[PathBuf]) -> Result<Self> {
        let mut hash = Sha256::new();
        for file in files {
            let bytes = std::fs::read(file).map_err(unreadable(file))?;
            hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            hash.update(Sha256::digest(&bytes));
        }
        Ok(Self::of_files(TRUTH, path, short(hash), files.len()))
    }
}

/// The role of ground-truth files.
pub const TRUTH: &str = "truth";

impl Record {
    /// Creates a record of this version without settings and scores.
    pub fn new(protocol: &str, weights: Weights) -> Self {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Self { protocol: protocol.to_owned(), weights, version, ..Self::default() }
    }

    /// Adds a setting.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.settings.insert(name.to_owned(), value.into());
    }

    /// Adds the settings `max_train` and `max_test`, the maximum numbers of images of both sets,
    /// where they are limited.
    pub fn limits(&mut self, [train, test]: [Option<usize>; 2]) {
        for (name, limit) in [("max_train", train), ("max_test", test)] {
            if let Some(limit) = limit {
                self.set(name, limit);
            }
        }
    }

    /// Adds a score of this network. The first one becomes the main metric, which must be a
    /// fraction from 0 to 1 where more is better.
    pub fn score(&mut self, name: &str, value: f64) {
        if self.metrics.is_empty() {
            name.clone_into(&mut self.main);
        }
        self.metrics.insert(name.to_owned(), value);
    }

    /// Adds a score of a baseline.
    pub fn baseline(&mut self, of: &str, name: &str, value: f64) {
        self.baselines.entry(of.to_owned()).or_default().insert(name.to_owned(), value);
    }

    /// Adds a note, unless it is already there.
    pub fn note(&mut self, text: &str) {
        if !self.notes.iter().any(|note| note == text) {
            self.notes.push(text.to_owned());
        }
    }

    /// Adds the effective rank and the effective dimension of the network's features.
    pub fn spread(&mut self, spread: Spread) {
        self.effective_rank = Some(spread.effective_rank);
        self.effective_dimension = Some(spread.effective_dimension);
    }

    /// Returns the main score of this network.
    pub fn main_score(&self) -> Option<f64> {
        self.metrics.get(&self.main).copied()
    }

    /// Returns the name and the score of the baseline that needs no network, if there is one.
    pub fn without_network(&self, metric: &str) -> Option<(&'static str, f64)> {
        let score = |name: &'static str| Some((name, *self.baselines.get(name)?.get(metric)?));
        WITHOUT_NETWORK.into_iter().find_map(score)
    }

    /// Returns the columns of the scores: [`THIS`], then the baselines by name.
    pub fn columns(&self) -> impl Iterator<Item = (&str, &Metrics)> {
        let baselines = self.baselines.iter().map(|(name, metrics)| (name.as_str(), metrics));
        std::iter::once((THIS, &self.metrics)).chain(baselines)
    }

    /// Returns whether both records are results of the same measurement.
    ///
    /// Weights are compared by fingerprint and step, and images by role and fingerprint, so paths
    /// may differ. Numbers in settings are equal if they differ by less than a part in 10^12,
    /// because a file may change their last digit.
    pub fn repeats(&self, other: &Self) -> bool {
        let data = |record: &Self| -> Vec<(String, String)> {
            let identity = |data: &DataUsed| (data.role.clone(), data.fingerprint.clone());
            record.data.iter().map(identity).collect()
        };
        let sizes = |record: &Self| [record.resize, record.crop, record.mask_size];
        let weights = |record: &Self| (record.weights.fingerprint.clone(), record.weights.step);
        self.protocol == other.protocol
            && sizes(self) == sizes(other)
            && self.precision == other.precision
            && weights(self) == weights(other)
            && data(self) == data(other)
            && self.settings.len() == other.settings.len()
            && self.settings.iter().zip(&other.settings).all(|(a, b)| a.0 == b.0 && same(a.1, b.1))
    }

    /// Copies those baselines of an earlier result of the same measurement that were not measured
    /// again, such as `untrained`.
    pub(crate) fn keep_baselines(&mut self, earlier: &Self) {
        for (name, metrics) in &earlier.baselines {
            if self.baselines.contains_key(name) {
                continue;
            }
            self.baselines.insert(name.clone(), metrics.clone());
            if earlier.version != self.version {
                self.note(&format!(
                    "the scores of {name} were computed by version {}",
                    earlier.version
                ));
            }
        }
    }

    /// Checks that every number is finite, because JSON cannot represent others.
    ///
    /// # Errors
    /// Returns an error that names the first number that is not finite, or if there is no main
    /// metric.
    pub fn check(&self) -> Result<()> {
        let protocol = || self.protocol.clone();
        if self.main_score().is_none() {
            return Err(Error::NoScore { protocol: protocol() });
        }
        for (column, metrics) in self.columns() {
            if let Some(name) = metrics.iter().find(|(_, value)| !value.is_finite()) {
                let what = format!("{} of {column}", name.0);
                return Err(Error::ScoreNotFinite { protocol: protocol(), what });
            }
        }
        for (what, value) in [
            ("the effective rank", self.effective_rank),
            ("the effective dimension", self.effective_dimension),
        ] {
            if value.is_some_and(|value| !value.is_finite()) {
                let what = what.to_owned();
                return Err(Error::ScoreNotFinite { protocol: protocol(), what });
            }
        }
        Ok(())
    }
}

/// Names of the baselines that need no network.
const WITHOUT_NETWORK: [&str; 2] = ["pixels", "mean map"];

/// Name of the column with the network's own scores.
pub const THIS: &str = "this network";

/// Returns whether two values are equal, up to the last digits of numbers.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-12 * a.abs().max(b.abs()),
            _ => a == b,
        },
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
