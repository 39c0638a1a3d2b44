//! What a run measures of its teacher on its way.

mod describe;
mod images;
mod open;
mod segment;
mod suite;

pub use describe::describe;
pub use open::{Opened, open};
pub use suite::Probes;
