#![doc = include_str!("../README.md")]
//!
//! # Inside
//!
//! [`extract`] makes a [`FeatureSet`] with any [`FeatureExtractor`], [`fn@knn`] classifies it, [`baseline`]
//! has the features of raw pixels, and [`pca`] and [`pictures`] show what patches mean.
//!
//! Shape legend: `B` images, `n` images of a whole set, `N` patches, `D` width, `K` classes.

#![forbid(unsafe_code)]

pub mod baseline;
pub mod error;
pub mod features;
pub mod knn;
mod knn_task;
pub mod pca;
pub mod pictures;

pub use error::{Error, Result};
pub use features::{ExtractOptions, FeatureExtractor, FeatureSet, extract, to_input, unit_rows};
pub use knn::{KnnConfig, KnnResult, KnnScore, knn};
pub use knn_task::{KnnOptions, KnnTable, KnnTask};
