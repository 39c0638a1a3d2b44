#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod affinity;
pub mod crf;
mod dense;
mod error;
mod lanczos;
mod lattice;
mod mask;
pub mod maskcut;
pub mod ncut;
pub mod picture;
pub mod propagate;
pub mod resize;
mod tile;
mod vector;
mod window;

pub use affinity::Affinity;
pub use crf::{Crf, CrfOptions, Refined};
pub use maskcut::{MaskCut, MaskCutOptions, maskcut};

pub use error::{Error, Result};
pub use mask::{Grid, Mask};

pub use ncut::{Ncut, ncut};
pub use picture::Picture;
pub use propagate::{PropagateOptions, Propagator};
