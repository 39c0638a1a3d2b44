#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

mod bbox;
pub mod coco;
mod corloc;
pub mod davis;
mod error;
mod index_image;
mod rle;
mod table;

pub use bbox::BBox;
pub use corloc::{CorLoc, corloc};
pub use error::{EntryError, Error, MaskError, PngError, Result, SequenceError};
pub use index_image::IndexImage;
pub use rle::Rle;
