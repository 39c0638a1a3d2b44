//! Video object segmentation as scored by DAVIS: J, the overlap of regions, and F, the agreement of
//! boundaries.

mod boundary;
mod folder;
mod frame;
mod mask;
mod statistics;

pub use folder::{Options, Report, SequenceObject, annotations, score, sequence_names};
pub use frame::{FrameScore, score_frame};
pub use mask::ObjectMask;
pub use statistics::Statistics;
