//! Pictures for people: what the model sees in an image, and what the augmentation does to it.

mod attention;
mod crops;
mod pca;
mod sheet;

pub use attention::{AttentionExtractor, AttentionOptions, attention_sheet};
pub use crops::crop_sheet;
pub use pca::{PatchExtractor, PcaOptions, pca_sheet};
pub(crate) use sheet::lay_out;
