//! What a backbone learnt, measured without training anything on top: features of a data set,
//! weighted k-NN with a pixel baseline beside it, pictures of patch features and of crops.
//!
//! Results are plain values that serialise; nothing here prints. This crate knows no trainer.
//!
//! Shape legend: `B` images, `n` images of a whole set, `N` patches, `D` width, `K` classes.
#![forbid(unsafe_code)]

pub mod baseline;
pub mod error;
pub mod features;
pub mod knn;
pub mod pca;
pub mod pictures;

pub use error::{Error, Result};
pub use features::{ExtractOptions, FeatureExtractor, FeatureSet, extract, to_input};
pub use knn::{KnnConfig, KnnResult, KnnScore, knn};
