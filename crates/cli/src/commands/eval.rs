//! `simdino eval`: what a backbone learned, measured on labeled images.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use augment::EvalTransform;
use clap::Subcommand;
use eval::{KnnConfig, KnnOptions, KnnResult, KnnTable, KnnTask};
use serde_json::json;
use simdino::device::{self, DeviceSpec};
use simdino::weights::data_config;
use trainer::files::write_json;

use crate::console::note;
use crate::failure::{Failure, Result};
use crate::precision::Precision;
use crate::sizes::{Sizes, words};
use crate::weights;

/// What `eval` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    protocol: Protocol,
}

#[derive(Debug, Subcommand)]
enum Protocol {
    /// Weighted k-NN, beside raw pixels and the same network untrained
    Knn(KnnArgs),
}

/// What `eval knn` takes.
#[derive(Debug, clap::Args)]
pub struct KnnArgs {
    /// A weight file, a checkpoint, or a run
    #[arg(long, value_name = "PATH")]
    weights: PathBuf,
    /// Labeled images that vote: folder, list or shards
    #[arg(long, value_name = "PATH")]
    train: String,
    /// Labeled images that are classified
    #[arg(long, value_name = "PATH")]
    test: String,
    /// Neighbors that vote; the first is the one reported
    #[arg(long, value_delimiter = ',', default_value = "20,10,100,200")]
    k: Vec<usize>,
    /// Temperature of the votes
    #[arg(long, default_value_t = 0.07)]
    temperature: f64,
    #[command(flatten)]
    sizes: Sizes,
    /// What the keys of the network in the file begin with, where there are several
    #[arg(long)]
    prefix: Option<String>,
    /// Most images used of the first set; all if it is not given
    #[arg(long)]
    max_train: Option<NonZeroUsize>,
    /// Most images used of the second set; all if it is not given
    #[arg(long)]
    max_test: Option<NonZeroUsize>,
    /// auto, cpu, cuda or cuda:N
    #[arg(long, default_value = "auto")]
    device: DeviceSpec,
    /// Precision of the networks; bf16 is several times as fast on a GPU
    #[arg(long, value_enum, default_value_t = Precision::Fp32)]
    precision: Precision,
    /// One JSON object on the last line instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    match &args.protocol {
        Protocol::Knn(args) => run_knn(args),
    }
}

fn run_knn(args: &KnnArgs) -> Result<()> {
    if args.k.contains(&0) {
        return Err(Failure::usage("--k: every number must be at least 1 (got 0)"));
    }
    let device = device::resolve(args.device)?;
    let weights = weights::open(&args.weights, args.prefix.as_deref(), device)?;
    let transform = args.sizes.transform(&args.weights, &weights.model)?;
    let (train, test) = (args.train.as_str(), args.test.as_str());
    let mut options = KnnOptions::new(train, test, transform, weights.normalize.clone());
    (options.max_train, options.max_test) =
        (args.max_train.map(NonZeroUsize::get), args.max_test.map(NonZeroUsize::get));
    options.knn =
        KnnConfig { k: args.k.clone(), temperature: args.temperature, ..KnnConfig::default() };
    (options.device, options.precision) = (device, args.precision.into());
    let task = KnnTask::open(options, &data_config(&weights, ""))?;
    task.notices().iter().for_each(|text| note(text));
    let table = task.table(&weights.backbone, &weights.untrained()?)?;
    if args.weights.join("config.resolved.yaml").is_file() {
        write_json(&args.weights.join("results.json"), &table)?;
    }
    print(args, &table, weights.step)
}

fn print(args: &KnnArgs, table: &KnnTable, step: u64) -> Result<()> {
    if args.json {
        let summary = json!({
            "top1": table.knn.top1(),
            "untrained": table.untrained.top1(),
            "pixels": table.pixels.top1(),
            "step": step,
            "resize": table.resize,
            "crop": table.crop,
            "precision": table.precision,
            "results": table,
        });
        println!("{}", serde_json::to_string(&summary)?);
        return Ok(());
    }
    println!(
        "{}: {} images vote, {} are classified, {} classes; {}, {}",
        args.weights.display(),
        table.knn.num_train,
        table.knn.num_test,
        table.knn.classes,
        words(EvalTransform { resize: table.resize, crop: table.crop }),
        args.precision
    );
    println!("{:>6}  {:>16}  {:>16}  {:>16}", "k", "this network", "untrained", "raw pixels");
    for (i, score) in table.knn.scores.iter().enumerate() {
        let cell = |result: &KnnResult| {
            result.scores.get(i).map_or_else(String::new, |s| {
                format!("{:.1} % (top5 {:.1})", 100.0 * s.top1, 100.0 * s.top5)
            })
        };
        println!(
            "{:>6}  {:>20}  {:>20}  {:>20}",
            score.k,
            cell(&table.knn),
            cell(&table.untrained),
            cell(&table.pixels)
        );
    }
    Ok(())
}
