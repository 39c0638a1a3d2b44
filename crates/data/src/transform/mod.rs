//! From a decoded image to crops: the multi-crop augmentation and the evaluation transform.
//!
//! Each operation is a file of its own and follows Pillow and torchvision value by value, up to
//! the deviations its documentation states (`tests/parity_augment.rs` holds it to that). This
//! module knows neither files nor threads: an image is worked on by the thread that calls.

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
