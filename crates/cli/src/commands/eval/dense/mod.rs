//! Evaluations of patch features on images with a class for every pixel.

pub mod in_context;
mod kept;
mod labels;
pub mod patches;
mod scored;
pub mod segment;
mod shared;
mod subject;

pub use kept::KeptMaps;
pub use scored::skipped;
pub use subject::{DenseImages, DenseSubject};
