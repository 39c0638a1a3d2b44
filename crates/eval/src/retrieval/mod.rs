//! Image retrieval: ranks images by how likely they are to show the same place or object.
//!
//! [`Revisited`] scores rankings as in the revisited Oxford and Paris benchmarks, and [`copydays`]
//! scores copy detection on Copydays.

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
