//! Linear segmentation: a linear layer on the patch features of a frozen backbone, trained with a
//! published recipe.

mod config;
mod crops;
mod head;
mod loss;
mod photometric;
mod state;
mod train;
mod windows;

pub use config::{Averaged, Decay, LinearConfig, Recipe};
pub use head::LinearHead;
pub use state::StateFile;
pub use train::{Progress, TrainReport, train};
pub use windows::LinearSegmenter;
