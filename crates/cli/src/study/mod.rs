//! `simdino study`: many runs of one recipe, each with its own settings, in one table.

pub mod grid;
pub mod outcome;
pub mod runs;
pub mod tables;
