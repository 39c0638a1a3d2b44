//! The result of a linear probe.

use serde::Serialize;

use super::config::HeadInput;
use crate::record::Record;

/// The result of a [`super::LinearProbe`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LinearResult {
    /// Fraction of test images whose class has the highest score, 0-1.
    pub top1: f64,
    /// Fraction of test images whose class is among the five highest scores, 0-1.
    pub top5: f64,
    /// Features of the chosen head.
    pub input: HeadInput,
    /// Learning rate of the chosen head, before scaling.
    pub rate: f64,
    /// Number of epochs after which the head was measured.
    pub epoch: usize,
    /// Top-1 accuracy of every head on the images that chose the head, 0-1, ordered by input first,
    /// then by learning rate.
    pub heads: Vec<f64>,
    /// Number of labeled training images that the heads learned from.
    pub num_train: usize,
    /// Number of labeled training images that were held out to choose the head; 0 if the test
    /// images chose it.
    pub num_held_out: usize,
    /// Number of labeled test images.
    pub num_test: usize,
    /// Number of classes among the training images.
    pub classes: usize,
    /// Notes on how to read the numbers.
    pub notes: Vec<String>,
}

impl LinearResult {
    /// Adds the scores, chosen settings, and notes to a record, and the scores of the same network
    /// untrained if given.
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
