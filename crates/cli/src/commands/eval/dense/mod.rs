//! Evaluations on images with a class for every pixel.

mod args;
pub mod in_context;
mod labels;
pub mod patches;
pub mod segment;
mod shared;

pub use args::DenseImageArgs;
