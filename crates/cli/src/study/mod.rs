//! `simdino study`: runs one recipe many times with different settings, and collects the results in
//! one table.

pub mod grid;
pub mod outcome;
pub mod runs;
pub mod tables;
