#![doc = include_str!("../README.md")]
//!
//! # Overview
//!
//! [`extract`] creates a [`FeatureSet`] with any [`FeatureExtractor`], [`fn@knn`] classifies it,
//! and [`baseline`] provides the features of raw pixels. [`pca`] and [`pictures`] visualize patch
//! features. [`logistic`], [`linear`], [`segmentation`], [`depth`], [`retrieval`], [`discovery`],
//! and [`tracking`] are further protocols; [`record`] and [`results`] store their results.
//!
//! Shape legend: `B` images of a batch, `n` images of a whole set, `N` patches, `D` feature width,
//! `K` classes.

#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod adamw;
pub mod baseline;
pub mod depth;
pub mod discovery;
mod error;
mod features;
mod few_shot;
mod files;
mod frozen;
mod gather;
mod image_set;
mod knn;
mod knn_task;
mod labeled;
pub mod linear;
pub mod logistic;
pub mod nearest;
mod order;
pub mod pca;
pub mod pictures;
pub mod record;
pub mod results;
pub mod retrieval;
pub mod segmentation;
pub mod spectrum;
pub mod store;
mod subset;
mod torch_random;
pub mod tracking;

pub use error::{Error, Result};
pub use features::{
    ExtractOptions, FeatureExtractor, FeaturePrecision, FeatureSet, MeanPatch, extract,
    extract_with_progress, to_input, unit_rows,
};
pub use few_shot::{FewShotConfig, FewShotScore, few_shot};
pub use files::{FeatureFormat, read_feature_set, read_features, write_features};
pub use frozen::Frozen;
pub use image_set::{ImageSet, check_labels, pixels_shared};
pub use knn::{KnnConfig, KnnResult, KnnScore, knn, knn_shared};
pub use knn_task::{KnnOptions, KnnTable, KnnTask, data_config, open_labeled};
pub use subset::SUBSET_VERSION;
