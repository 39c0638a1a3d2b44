//! A row of a study.

use serde::{Deserialize, Serialize};

/// What came of one run; what does not apply or was not measured is absent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// Name of the run.
    pub run: String,
    /// Name of its method.
    pub method: String,
    /// Key of each axis that it has a value on, and the value.
    pub cell: Vec<(String, String)>,
    /// Its seed.
    pub seed: u64,
    /// `done`, `failed`, `unfinished`, or `not started`.
    pub status: String,
    /// k-NN accuracy at the end, 0 to 1.
    pub knn: Option<f64>,
    /// The same of the untrained network.
    pub untrained: Option<f64>,
    /// The same of raw pixels.
    pub pixels: Option<f64>,
    /// Accuracy of logistic regression at the end, 0 to 1.
    pub logistic: Option<f64>,
    /// Mean IoU of segmentation by k-NN at the end, 0 to 1.
    pub miou: Option<f64>,
    /// Effective rank of the features of the probe's images at the end.
    pub probe_rank: Option<f64>,
    /// Similarity of views at the end, at most 1.
    pub similarity: Option<f64>,
    /// Position of the coding rate between floor (0) and ceiling (1) at the end.
    pub position: Option<f64>,
    /// The lowest position after the first tenth of the training.
    pub least_position: Option<f64>,
    /// Weight of the similarity relative to that of the coding rate at the end.
    pub coeff: Option<f64>,
    /// Effective rank of the features at the end.
    pub effective_rank: Option<f64>,
    /// Whether the run ended collapsed.
    pub collapsed: Option<bool>,
    /// Images per second, the median of the metrics lines.
    pub images_per_second: Option<f64>,
    /// Seconds of the process.
    pub seconds: Option<f64>,
    /// Why it failed or counts as collapsed.
    pub message: String,
    /// k-NN accuracy over the share of the training, if the run measured it on its way.
    pub curve: Vec<(f64, f64)>,
}

impl Row {
    /// Its value on an axis.
    pub fn value(&self, axis: &str) -> Option<&str> {
        self.cell.iter().find(|(key, _)| key == axis).map(|(_, value)| value.as_str())
    }

    /// Whether the run has come to an end, good or bad.
    pub fn ended(&self) -> bool {
        matches!(self.status.as_str(), "done" | "failed")
    }
}
