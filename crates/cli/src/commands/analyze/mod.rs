//! `simdino analyze`: studies the coding rate as the paper does, on synthetic and saved features.

mod arguments;
mod charts;
mod coding_rate;
mod features;
mod figure;
mod gradient_scale;

use clap::Subcommand;

use crate::failure::Result;

/// Arguments of `simdino analyze`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Norm of the gradient of the coding rate, compared with the bound of Theorem 3.1
    GradientScale(gradient_scale::Args),
    /// Coding rate, effective rank and spectrum of saved features
    CodingRate(coding_rate::Args),
}

/// Runs the command.
///
/// # Errors
/// Returns an error if features cannot be read or are too few, or if a figure cannot be written.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::GradientScale(args) => gradient_scale::run(args),
        What::CodingRate(args) => coding_rate::run(args),
    }
}
