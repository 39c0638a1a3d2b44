//! `simdino embed`: writes one feature vector per image to a file, for use in other programs.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use eval::{ExtractOptions, FeatureExtractor, FeaturePrecision, MeanPatch, extract_with_progress};
use eval::{FeatureFormat, write_features};

use crate::console::{answer, name_skipped, note, progress};
use crate::failure::{Failure, Result};
use crate::sizes::{Sizes, words};
use crate::weights;
use simdino::device::{self, DeviceSpec};

/// Arguments of `simdino embed`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A weight file, a checkpoint, or a run
    #[arg(long, value_name = "PATH")]
    weights: PathBuf,
    /// Images: folder, list or shards
    #[arg(long, value_name = "PATH")]
    data: String,
    /// File to write, .npy, .safetensors or .csv; names and labels go to a .names.csv beside the
    /// first two
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Vector that represents an image
    #[arg(long, value_enum, default_value_t = Pooling::Cls)]
    pooling: Pooling,
    #[command(flatten)]
    sizes: Sizes,
    /// Prefix of the keys of the network, if the file contains several
    #[arg(long)]
    prefix: Option<String>,
    /// Maximum number of images, spread over the set; all by default
    #[arg(long)]
    limit: Option<NonZeroUsize>,
    /// Images per forward pass; by default 64 on a CPU and 256 on a GPU
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
    /// Precision of the network, fp32 or bf16; bf16 is several times as fast on a GPU
    #[arg(long, default_value_t = FeaturePrecision::Fp32)]
    precision: FeaturePrecision,
}

/// The vector that represents an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Pooling {
    /// The class token
    Cls,
    /// The mean of the patch tokens
    Mean,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if the weights or images cannot be read or the file cannot be written.
pub fn run(args: &Args) -> Result<()> {
    if FeatureFormat::of(&args.out).is_none() {
        return Err(Failure::usage(format!(
            "--out: must end in .npy, .safetensors, or .csv (got {})",
            args.out.display()
        )));
    }
    let device = device::resolve(args.device)?;
    let weights = weights::open(&args.weights, args.prefix.as_deref(), device)?;
    let transform = args.sizes.transform(&args.weights, &weights.model)?;
    let dataset = Arc::new(data::open(&eval::data_config(&weights, &args.data))?);
    dataset.notices().sentences_about(&args.data).iter().for_each(|text| note(text));
    let mut options = ExtractOptions::new(transform, weights.normalize.clone());
    (options.device, options.precision) = (device, args.precision);
    options.batch = args.batch.map_or(ExtractOptions::batch_for(device), NonZeroUsize::get);
    options.limit = args.limit.map(NonZeroUsize::get);
    let backbone = &weights.backbone;
    let mean = MeanPatch(backbone);
    let extractor: &dyn FeatureExtractor = match args.pooling {
        Pooling::Cls => backbone,
        Pooling::Mean => &mean,
    };
    let bar = progress(dataset.len(), "images embedded");
    let set = extract_with_progress(&dataset, extractor, &options, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    name_skipped("", &set.broken);
    write_features(&args.out, &set)?;
    let (rows, width) = set.features.size2()?;
    let (out, sizes) = (args.out.display(), words(transform));
    answer(&format!("wrote {rows} x {width} features to {out}; {sizes}\n"))
}
