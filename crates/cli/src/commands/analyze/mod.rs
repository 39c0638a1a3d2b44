//! `simdino analyze`: the coding rate as the paper studies it, on made-up and on saved features.

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

/// The paper's eps of the published runs: the root of the 0.05 that its code takes.
const EPS: f64 = 0.223_606_797_749_979;

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

/// `eps` must be a number above 0.
fn parse_eps(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(eps) if eps > 0.0 && eps.is_finite() => Ok(eps),
        _ => Err("must be a number greater than 0".into()),
    }
}

/// Rows and widths must be whole numbers from 1 to 65536.
fn parse_size(text: &str) -> std::result::Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (1..=1 << 16).contains(&size) => Ok(size),
        _ => Err("must be a whole number from 1 to 65536".into()),
    }
}
