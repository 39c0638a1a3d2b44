//! Video object segmentation as DAVIS scores it: J, the overlap of regions, and F, that of boundaries.

mod boundary;
mod folder;
mod frame;
mod mask;
mod statistics;

pub use folder::{Options, Report, SequenceObject, score};
pub use frame::{FrameScore, score_frame};
pub use mask::ObjectMask;
pub use statistics::Statistics;
