//! Image retrieval: how highly images of the same place or object are ranked.
//!
//! [`Revisited`] scores rankings as the revisited Oxford and Paris benchmarks do, and [`copydays`] as copy
//! detection on Copydays does.

mod average_precision;
pub mod copydays;
mod embed;
mod ground_truth;
mod revisited;

pub use average_precision::{average_precision, precision_at};
pub use embed::{
    EmbedOptions, Embedded, ImageFeatureKind, ImageFile, embed, fingerprint, images_in,
};
pub use ground_truth::{GroundTruth, Query};
pub use revisited::{Difficulty, RetrievalScore, Revisited};
