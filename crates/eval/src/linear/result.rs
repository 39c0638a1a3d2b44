//! The result of a probe.

use serde::Serialize;

use super::config::HeadInput;
use crate::record::Record;

/// Result of a [`super::LinearProbe`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LinearResult {
    /// Fraction of test images whose class has the highest score, 0-1.
    pub top1: f64,
    /// Fraction of test images whose class is among the five highest scores, 0-1.
    pub top5: f64,
    /// Features of the head that was chosen.
    pub input: HeadInput,
    /// Its learning rate, before it was scaled.
    pub rate: f64,
    /// Number of epochs after which it was measured.
    pub epoch: usize,
    /// Top-1 accuracy of every head on the images that chose, 0-1: inputs in order, and for each
    /// input the rates in order.
    pub heads: Vec<f64>,
    /// Number of labeled training images that the heads learned from.
    pub num_train: usize,
    /// Number of labeled training images that were held out and chose; 0 if the test images did.
    pub num_held_out: usize,
    /// Number of labeled test images.
    pub num_test: usize,
    /// Number of classes among the training images.
    pub classes: usize,
    /// Notes for the reader of the numbers.
    pub notes: Vec<String>,
}

impl LinearResult {
    /// Adds the scores, choice, and notes, and the scores of the same network untrained, to a record.
    pub fn describe(&self, untrained: Option<&Self>, record: &mut Record) {
        record.score("top1", self.top1);
        record.score("top5", self.top5);
        if let Some(untrained) = untrained {
            record.baseline("untrained", "top1", untrained.top1);
            record.baseline("untrained", "top5", untrained.top5);
        }
        let mut chosen = |name: &str, value: serde_json::Value| {
            record.chosen.insert(name.to_owned(), value);
        };
        chosen("blocks", self.input.blocks.into());
        chosen("mean_patch", self.input.mean_patch.into());
        chosen("rate", self.rate.into());
        chosen("epoch", self.epoch.into());
        self.notes.iter().for_each(|text| record.note(text));
    }
}
