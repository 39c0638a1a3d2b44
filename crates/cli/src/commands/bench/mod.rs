//! `simdino bench`: measures the speed of training steps, evaluations, and the data pipeline.

mod data;
mod eval;
mod shapes;
mod step;

use clap::Subcommand;

use crate::failure::Result;

/// Arguments of `simdino bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The whole training step, without data
    Step(step::StepArgs),
    /// Evaluations on frozen features, and the extraction of features
    Eval(eval::EvalArgs),
    /// The data pipeline, without training: images to crops
    Data(data::DataArgs),
}

/// Runs the command.
///
/// # Errors
/// Returns the errors of the subcommand.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Step(args) => step::run(args),
        What::Eval(args) => eval::run(args),
        What::Data(args) => data::run(args),
    }
}
