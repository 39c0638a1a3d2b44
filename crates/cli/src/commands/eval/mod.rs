//! `simdino eval`: what a backbone learned, measured on labeled images.

use clap::Subcommand;

use crate::failure::Result;

mod knn;
mod logistic;
mod networks;
mod outcome;
mod subject;

/// What `eval` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Weighted k-NN, beside raw pixels and the same network untrained
    Knn(knn::KnnArgs),
    /// Logistic regression, beside the same network untrained; DINOv2 measures it with --resize 224
    Logistic(logistic::LogisticArgs),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.protocol {
        Protocol::Knn(args) => knn::run(args),
        Protocol::Logistic(args) => logistic::run(args),
    }
}
