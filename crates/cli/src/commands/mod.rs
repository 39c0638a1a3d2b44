//! The commands. Each file or folder defines the arguments of a command and implements it.

pub mod analyze;
pub mod bench;
pub mod completions;
pub mod config;
pub mod data;
pub mod embed;
pub mod eval;
pub mod export;
pub mod import;
pub mod inspect;
pub mod picture;
pub mod report;
pub mod reproduce;
pub mod score;
pub mod study;
pub mod train;
