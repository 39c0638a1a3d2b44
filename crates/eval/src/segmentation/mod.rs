//! Semantic segmentation with the patch features of a frozen backbone.
//!
//! [`linear`] trains a linear head, as published evaluations of backbones do. [`in_context`] and
//! [`knn`](mod@knn) look up the most similar patches of the training images, without training a
//! network. All protocols are scored by a [`Confusion`] matrix.
//!
//! Shape legend: `B` images, `N` patches of an image in `h` rows and `w` columns, patches of `P` x
//! `P` pixels, `D` feature width, `K` classes, `M` patches in memory.

mod augmented;
mod candidates;
mod confusion;
mod evaluate;
mod features;
pub mod in_context;
pub mod knn;
pub mod linear;
mod map_store;
mod metered;
mod patch_config;
mod patches;
mod picture;
mod shared;
mod votes;

pub use confusion::{ClassScore, Confusion, SegmentationScore};
pub use evaluate::{DenseData, Evaluated, MaskSize, OnImage, Segmenter, evaluate};
pub(crate) use evaluate::{read_each, threads};
pub use features::{DenseExtractor, DenseNetwork, Layers};
pub(crate) use features::{image_of, resized};
pub use map_store::MapStore;
pub use metered::Metered;
pub use picture::{Shown, predicted_row, truth_rows};
pub use shared::{evaluate_shared, fill_maps};
