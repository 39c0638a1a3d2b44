//! Protocols that rank images by vectors of whole images.

mod copies;
mod embedded;
mod retrieval;

pub use copies::CopyDetection;
pub use retrieval::Retrieval;
