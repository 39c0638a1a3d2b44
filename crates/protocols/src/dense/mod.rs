//! Protocols that segment images with patch features.

mod images;
mod in_context;
mod kept;
mod patches;
mod scored;
mod segment;

pub use images::{DenseFolder, DenseImages};
pub use in_context::InContext;
pub use kept::fill_maps;
pub use patches::{PatchClassifier, SegmentPatches};
pub(crate) use scored::skipped;
pub use segment::Segment;
