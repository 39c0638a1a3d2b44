//! `simdino analyze`: studies the coding rate as in the paper, on artificial and on saved
//! features.

mod arguments;
mod charts;
mod coding_rate;
mod features;
mod figure;
mod gradient_scale;

use clap::Subcommand;

use crate::failure::Result;

/// What `analyze` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// How large the gradient of the coding rate is, against the bound of Theorem 3.1
    GradientScale(gradient_scale::Args),
    /// Coding rate, effective rank and spectrum of saved features
    CodingRate(coding_rate::Args),
}

/// Runs the verb.
///
/// # Errors
/// A wrong number, features that cannot be read, a figure that cannot be written.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::GradientScale(args) => gradient_scale::run(args),
        What::CodingRate(args) => coding_rate::run(args),
    }
}
