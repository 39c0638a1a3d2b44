//! Evaluations of patch features on images with a class for every pixel.

pub mod in_context;
mod labels;
pub mod patches;
mod scored;
pub mod segment;
mod subject;

pub use scored::skipped;
pub use subject::{DenseImages, DenseSubject};
