//! Depth of single images with the features of a frozen backbone: a linear head, trained as DINOv2's.
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
pub use score::{DepthScore, Errors, Estimator, Evaluated, LinearEstimator, evaluate};
pub use train::{DepthReport, state_file, train};

use crate::record::DataUsed;

/// A set, and how many of its images are used.
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
    /// Describes the images in a record; `images` of them were used.
    pub fn used(&self, role: &str, images: usize) -> DataUsed {
        DataUsed::of_files(role, self.set.path(), self.set.fingerprint(), images)
    }

    /// Indices of the images in use.
    fn indices(&self) -> Vec<usize> {
        crate::subset::spread(self.set.len(), self.limit)
    }
}
