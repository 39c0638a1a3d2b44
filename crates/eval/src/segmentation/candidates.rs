//! Settings of patch classifiers that are chosen on held-out images.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::logistic::rounded;
use crate::nearest::Similarity;

/// A candidate and its score on the held-out images.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Candidate<T> {
    /// The settings that were tried.
    pub settings: T,
    /// mIoU on the held-out images, 0-1.
    pub miou: f64,
}

/// Settings of a k-NN classifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct KnnSettings {
    /// Number of neighbors.
    pub k: usize,
    /// How patches are compared.
    pub similarity: Similarity,
}

/// The chosen settings of a patch classifier.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Chosen {
    /// The settings of k-NN.
    Knn(KnnSettings),
    /// The `C` of logistic regression.
    Logistic(f64),
}

impl Chosen {
    /// Returns the settings in the form stored in a record: a number or text.
    pub fn in_record(&self) -> Value {
        match self {
            Self::Knn(_) => self.to_string().into(),
            Self::Logistic(c) => rounded(*c).into(),
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Knn(KnnSettings { k, similarity: Similarity::Cosine }) => {
                write!(f, "k {k} cosine")
            }
            Self::Knn(KnnSettings { k, similarity: Similarity::Euclidean }) => {
                write!(f, "k {k} euclidean")
            }
            Self::Logistic(c) => write!(f, "{c:.1e}"),
        }
    }
}

/// Returns the settings with the best score, the first ones among equals.
pub(super) fn best<T: Copy>(candidates: &[Candidate<T>]) -> Result<T> {
    let mut best: Option<&Candidate<T>> = None;
    for candidate in candidates {
        if best.is_none_or(|best| candidate.miou > best.miou) {
            best = Some(candidate);
        }
    }
    best.map(|best| best.settings).ok_or(Error::NothingLabeled)
}
