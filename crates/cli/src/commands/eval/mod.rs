//! `simdino eval`: measures what a backbone learned, by several protocols.

use clap::Subcommand;

use crate::failure::Result;

mod all;
mod copy;
mod dense;
mod depth;
mod few_shots;
mod knn;
mod labeled;
mod linear;
mod logistic;
mod maskcut;
mod networks;
mod numbers;
mod outcome;
mod retrieval;
mod shared;
mod sheet;
mod terminal;
mod video;

pub use outcome::Outcome;

/// Arguments of `simdino eval`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Weighted k-NN, compared with raw pixels and the same network untrained
    Knn(knn::KnnArgs),
    /// Linear heads, compared with the same network untrained: the grids of DINOv2 and SimDINOv2,
    /// or the head of DINO
    Linear(linear::LinearArgs),
    /// Every protocol that the given images allow, in one table
    All(Box<all::AllArgs>),
    /// Logistic regression, compared with the same network untrained; DINOv2 uses --resize 224
    Logistic(logistic::LogisticArgs),
    /// Linear segmentation: trains a linear head on frozen patch features by a published recipe
    Segment(dense::segment::SegmentArgs),
    /// Segmentation by k-NN and logistic regression on patches, without training (CAPI's protocol)
    SegmentKnn(dense::patches::PatchArgs),
    /// In-context segmentation with a memory of patches, without training (Hummingbird's protocol)
    InContext(dense::in_context::InContextArgs),
    /// Depth: trains a linear head on frozen patch features (DINOv2's protocol), compared with the
    /// mean depth at each position
    Depth(depth::DepthArgs),
    /// Object discovery by MaskCut, without training, scored by average precision
    Maskcut(maskcut::MaskCutArgs),
    /// Video object segmentation without training, scored by J and F as in DAVIS
    Video(video::VideoArgs),
    /// Image retrieval of the revisited Oxford and Paris benchmarks
    Retrieval(retrieval::RetrievalArgs),
    /// Copy detection on Copydays
    Copy(copy::CopyArgs),
}

impl Protocol {
    /// Returns whether several processes can share the extraction of features.
    fn shares_extraction(&self) -> bool {
        matches!(
            self,
            Self::Knn(_)
                | Self::Linear(_)
                | Self::Logistic(_)
                | Self::InContext(_)
                | Self::SegmentKnn(_)
        )
    }
}

/// Runs the command.
///
/// # Errors
/// Returns an error if a network could not be measured or the output cannot be written.
pub fn run(args: &Args) -> Result<()> {
    measure(args)?.print()
}

/// Measures all networks and saves the results, without printing them.
///
/// # Errors
/// Returns the errors of the protocol.
pub fn measure(args: &Args) -> Result<Outcome> {
    if !args.protocol.shares_extraction() {
        shared::refuse()?;
    }
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
        Protocol::Retrieval(args) => retrieval::run(args),
        Protocol::Copy(args) => copy::run(args),
    }
}
