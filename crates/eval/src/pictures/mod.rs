//! Pictures that show what a model sees in an image and what augmentation does to it.
//!
//! Pictures of networks consist of [`Row`]s: first the images, then the rows of each network,
//! labeled with its name. [`lay_out`] draws them as one sheet.

mod animation;
mod attention;
mod crops;
mod font;
mod foreground;
mod neighbors;
mod overlay;
mod pca;
mod scene;
mod sheet;

pub use animation::animated_webp;
pub use attention::{AttentionExtractor, AttentionOptions, AttentionView, attention_rows};
pub use crops::crop_sheet;
pub use neighbors::{Embedded, neighbor_cells};
pub use overlay::{as_high_as_a_cell, with_masks, with_objects};
pub use pca::{PatchExtractor, PatchKeys, PcaOptions, PcaRows, PcaView, pca_rows};
pub use scene::Scene;
pub use sheet::{Row, lay_out, wrapped};
