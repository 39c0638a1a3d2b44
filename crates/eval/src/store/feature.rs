//! The kinds of image features.

use serde::Serialize;

/// A feature vector of an image, `[D]`, after the final norm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageFeature {
    /// The class token of a block, counted from the end: 1 is the last block.
    Cls(u8),
    /// The mean of the patch tokens of the last block.
    MeanPatch,
}

impl ImageFeature {
    /// Returns the name of its tensor in a file.
    pub(super) fn name(self) -> String {
        match self {
            Self::Cls(block) => format!("cls_{block}"),
            Self::MeanPatch => "mean_patch".to_owned(),
        }
    }
}
