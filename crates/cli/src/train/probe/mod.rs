//! The probes of a run: measurements of the teacher during training.

mod describe;
mod images;
mod open;
mod segment;
mod suite;

pub use describe::{describe, every_steps};
pub use open::{Opened, open};
pub use suite::Probes;
