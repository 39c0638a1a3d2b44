//! Monocular depth estimation with the features of a frozen backbone and a linear head, trained as
//! in DINOv2.
//!
//! Shape legend: `B` images, `C` channels of the features, `h` x `w` patches, `N` bins, `H` x `W` pixels.

mod config;
mod head;
mod loss;
mod mean_map;
mod sample;
mod score;
mod train;

use data::dense::DepthSet;

pub use config::{DepthConfig, DepthLayers, Scored};
pub use head::DepthHead;
pub use mean_map::MeanMap;
pub use score::{
    DepthScore, Errors, Estimator, Evaluated, LinearEstimator, check_scored, evaluate,
};
pub use train::{DepthReport, state_file, train};

use crate::record::DataUsed;

/// A set of images with depths, and how many of them are used.
#[derive(Debug, Clone, Copy)]
pub struct DepthData<'a> {
    /// The images.
    pub set: &'a DepthSet,
    /// Maximum number of images, spread evenly over the set; `None` = all.
    pub limit: Option<usize>,
    /// Decoding threads; `None` = one per core.
    pub workers: Option<usize>,
}

impl DepthData<'_> {
    /// Describes the images for a record; `images` is the number that were used.
    pub fn used(&self, role: &str, images: usize) -> DataUsed {
        DataUsed::of_files(role, self.set.path(), self.set.fingerprint(), images)
    }

    /// Returns the indices of the images in use.
    fn indices(&self) -> Vec<usize> {
        crate::subset::evenly_spaced(self.set.len(), self.limit)
    }
}
