//! Turns a decoded image into crops: the multi-crop augmentation and the evaluation transform.
//!
//! Each operation has its own file and matches Pillow and torchvision value by value, up to the
//! deviations in its documentation (which `tests/parity_augment.rs` verifies). This module knows
//! neither files nor threads: the calling thread processes an image.

pub mod blur;
pub mod color;
pub mod crop;
pub mod eval;
mod filter;
pub mod gray;
mod isa;
#[cfg(target_arch = "x86_64")]
mod isa_x86;
mod lanes;
pub mod multicrop;
pub mod planes;
pub mod resize;
pub mod solarize;
mod strip;
mod sum;

pub use crop::CropBox;
pub use eval::EvalTransform;
pub use multicrop::{CropKey, CropPlan, GLOBAL_CROPS, Jitter, MultiCrop};
pub use planes::Planes;
pub use resize::Job;
