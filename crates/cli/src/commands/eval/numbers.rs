//! Checks of numbers on the command line of evaluations.

use crate::failure::{Failure, Result};

/// Checks that the values of an option are greater than 0.
///
/// # Errors
/// Returns an error that names the option and the first value that is not.
pub fn positive(option: &str, values: &[f64]) -> Result<()> {
    match values.iter().find(|value| !value.is_finite() || **value <= 0.0) {
        None => Ok(()),
        Some(value) => {
            Err(Failure::usage(format!("{option}: must be greater than 0 (got {value})")))
        }
    }
}

/// Checks that the values of an option are at least 1.
///
/// # Errors
/// Returns an error that names the option.
pub fn at_least_one(option: &str, values: &[usize]) -> Result<()> {
    match values.contains(&0) {
        false => Ok(()),
        true => Err(Failure::usage(format!("{option}: must be at least 1 (got 0)"))),
    }
}
