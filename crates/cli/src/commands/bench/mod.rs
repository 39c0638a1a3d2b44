//! `simdino bench`: measures how fast this machine runs the parts of a training run.

mod data;
mod eval;
mod shapes;
mod step;

use clap::Subcommand;

use crate::failure::Result;

/// What `bench` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The whole training step, without data
    Step(step::StepArgs),
    /// Evaluations on frozen features, and the computation of these
    Eval(eval::EvalArgs),
    /// The data pipeline, without training: images to crops
    Data(data::DataArgs),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Step(args) => step::run(args),
        What::Eval(args) => eval::run(args),
        What::Data(args) => data::run(args),
    }
}
