#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![warn(missing_debug_implementations, unreachable_pub)]

pub mod check;
mod error;
mod files;
mod text;

pub use error::{error_chain, panic_message};
pub use files::{flush_folder, replace_atomic, write_atomic, write_atomic_with};
pub use text::{counted, printable};
