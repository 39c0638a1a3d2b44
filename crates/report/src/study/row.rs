//! One run of a study.

use serde::{Deserialize, Serialize};

/// The outcome of one run. What does not apply or was not measured is `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// Name of the run.
    pub run: String,
    /// Name of its method.
    pub method: String,
    /// Key and value of each axis that applies to the run.
    pub cell: Vec<(String, String)>,
    /// Seed of the run.
    pub seed: u64,
    /// `done`, `failed`, `unfinished`, or `not started`.
    pub status: String,
    /// k-NN accuracy at the end, 0 to 1.
    pub knn: Option<f64>,
    /// k-NN accuracy of the untrained network.
    pub untrained: Option<f64>,
    /// k-NN accuracy of raw pixels.
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
    /// Lowest position after the first tenth of the training.
    pub least_position: Option<f64>,
    /// Weight of the similarity, relative to that of the coding rate, at the end.
    pub coeff: Option<f64>,
    /// Effective rank of the features at the end.
    pub effective_rank: Option<f64>,
    /// Whether the run had collapsed by its end.
    pub collapsed: Option<bool>,
    /// Images per second: the median over the logged steps.
    pub images_per_second: Option<f64>,
    /// Run time of the process over all sessions, in seconds.
    pub seconds: Option<f64>,
    /// Why the run failed or counts as collapsed.
    pub message: String,
    /// k-NN accuracy during training, as (fraction of the training, accuracy), if it was probed.
    pub curve: Vec<(f64, f64)>,
}

impl Row {
    /// Returns the value of the run on an axis.
    pub fn value(&self, axis: &str) -> Option<&str> {
        self.cell.iter().find(|(key, _)| key == axis).map(|(_, value)| value.as_str())
    }

    /// Returns whether the run has ended, successfully or not.
    pub fn ended(&self) -> bool {
        matches!(self.status.as_str(), "done" | "failed")
    }
}
