//! `simdino eval`: what a backbone learned, measured on labeled images.

use clap::Subcommand;

use crate::failure::Result;

mod all;
mod dense;
mod depth;
mod knn;
mod linear;
mod logistic;
mod maskcut;
mod networks;
mod outcome;
mod retrieval;
mod sheet;
mod subject;
mod video;

pub use outcome::Outcome;

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
    /// Linear heads, beside the same network untrained: the grids of DINOv2 and SimDINOv2, or that of DINO
    Linear(linear::LinearArgs),
    /// Every protocol that the given images allow, in one table
    All(all::AllArgs),
    /// Logistic regression, beside the same network untrained; DINOv2 measures it with --resize 224
    Logistic(logistic::LogisticArgs),
    /// Linear segmentation: trains a linear head on frozen patch features by a published recipe
    Segment(dense::segment::SegmentArgs),
    /// Segmentation by k-NN and logistic regression on patches, without training (CAPI's protocol)
    SegmentKnn(dense::patches::PatchArgs),
    /// In-context segmentation with a memory of patches, without training (Hummingbird's protocol)
    InContext(dense::in_context::InContextArgs),
    /// Depth: trains a linear head on frozen patch features (DINOv2's protocol), beside the mean depth at each place
    Depth(depth::DepthArgs),
    /// Objects by MaskCut, without training, and their average precision
    Maskcut(maskcut::MaskCutArgs),
    /// Objects followed through videos, without training, with J and F as DAVIS scores them
    Video(video::VideoArgs),
    /// Image retrieval of the revisited Oxford and Paris benchmarks
    Retrieval(retrieval::RetrievalArgs),
    /// Copy detection on Copydays
    Copy(retrieval::CopyArgs),
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    measure(args)?.print()
}

/// Measures all networks, and keeps the results, without printing any.
///
/// # Errors
/// As those of the protocol.
pub fn measure(args: &Args) -> Result<Outcome> {
    match &args.protocol {
        Protocol::Knn(args) => knn::run(args),
        Protocol::Linear(args) => linear::run(args),
        Protocol::All(args) => all::run(args),
        Protocol::Logistic(args) => logistic::run(args),
        Protocol::Segment(args) => dense::segment::run(args),
        Protocol::SegmentKnn(args) => dense::patches::run(args),
        Protocol::InContext(args) => dense::in_context::run(args),
        Protocol::Depth(args) => depth::run(args),
        Protocol::Maskcut(args) => maskcut::run(args),
        Protocol::Video(args) => video::run(args),
        Protocol::Retrieval(args) => retrieval::run_retrieval(args),
        Protocol::Copy(args) => retrieval::run_copy(args),
    }
}
