//! `simdino bench eval`: measures how long evaluations take, on random features and on images.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use augment::EvalTransform;
use data::DataConfig;
use data::loader::EvalLoader;
use eval::linear::{LinearConfig, LinearProbe};
use eval::logistic::{LogisticConfig, fit};
use eval::store::{FeatureStore, ImageFeature, Network};
use eval::{ExtractOptions, FeatureSet, KnnConfig, knn, to_input, write_features};
use model::normalize::Normalize;
use model::{Mode, ModelConfig, VisionTransformer};
use serde_json::{Map, Value, json};
use tch::{Device, Kind, Tensor, nn};

use crate::console::answer;
use crate::failure::{Failure, Result};

/// Values of C for logistic regression.
const CS: [f64; 1] = [0.1];
/// Number of training steps of the grid of linear heads per measurement.
const STEPS: usize = 20;
/// Number of features per row: the class tokens of four blocks, and the mean of the patches.
const PARTS: i64 = 5;

/// Name of the time to read and resize the images of `extract` alone.
const LOADER: &str = "extract_loader";
/// Name of the time of the network of `extract` alone.
const NETWORK: &str = "extract_network";

/// Arguments of `simdino bench eval`.
#[derive(Debug, clap::Args)]
pub struct EvalArgs {
    /// Folder to write the features to, so that other programs can be measured on them
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// Images to embed by a ViT-S/16: folder, list file, or tar shards
    #[arg(long, value_name = "PATH")]
    images: Option<String>,
    /// Number of random training features
    #[arg(long, default_value_t = 50_000)]
    train: i64,
    /// Number of random test features
    #[arg(long, default_value_t = 10_000)]
    test: i64,
    /// Width of the random features
    #[arg(long, default_value_t = 384)]
    width: i64,
    /// Number of classes of the random features
    #[arg(long, default_value_t = 10)]
    classes: i64,
    /// Number of measurements of each kind; the shortest counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// One JSON object on the last line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// Returns an error if an option is invalid, images cannot be read, or features cannot be written.
pub fn run(args: &EvalArgs) -> Result<()> {
    let sizes = [args.train, args.test, args.width, args.classes];
    if sizes.iter().any(|&size| size < 2) || args.rounds == 0 || args.train < 500 {
        return Err(Failure::usage(
            "--train: must be at least 500, the other sizes at least 2, and --rounds at least 1",
        ));
    }
    let (train, test) = (set(args, args.train, 1), set(args, args.test, 2));
    if let Some(folder) = &args.folder {
        for (name, set) in [("train", &train), ("test", &test)] {
            write_features(&folder.join(format!("{name}.npy")), set)?;
        }
    }
    let last = |set: &FeatureSet| {
        let part = set.features.narrow(1, 3 * args.width, args.width).contiguous();
        FeatureSet::new(part, set.labels.clone())
    };
    let tokens = [last(&train), last(&test)];
    let mut times = Map::new();
    times.insert(
        "knn".into(),
        json!(shortest(args.rounds, || {
            knn(&tokens[0], &tokens[1], &KnnConfig::default()).map(|_| ())
        })?),
    );
    let labels: Vec<i64> = train.labels.iter().flatten().map(|&label| i64::from(label)).collect();
    let labels = Tensor::from_slice(&labels);
    let mut losses = Vec::new();
    times.insert(
        "logreg".into(),
        json!(shortest(1, || {
            let of = |&c: &f64| {
                fit(&tokens[0].features, &labels, args.classes, c, &LogisticConfig::default())
            };
            losses =
                CS.iter().map(|c| of(c).map(|model| model.loss)).collect::<eval::Result<_>>()?;
            Ok(())
        })?),
    );
    let config = LinearConfig::dinov2();
    let mut probe = LinearProbe::new(&train, &test, &config, None)?;
    probe.advance(2)?;
    let grid = shortest(args.rounds, || probe.advance(STEPS))? / STEPS as f64;
    times.insert("linear_grid".into(), json!(grid));
    if let Some(images) = &args.images {
        for (name, seconds) in extract(images, args.rounds)? {
            times.insert(name.into(), json!(seconds));
        }
    }
    print(args, &times, &losses)
}

/// Returns random labeled features around the centers of their classes, `[count, 5 D]` for the
/// width `D`. The centers are the same for all seeds.
fn set(args: &EvalArgs, count: i64, seed: i64) -> FeatureSet {
    let options = (Kind::Float, Device::Cpu);
    tch::manual_seed(0);
    let centers = Tensor::randn([args.classes, PARTS * args.width], options) * 0.2;
    tch::manual_seed(seed);
    let labels = Tensor::arange(count, (Kind::Int64, Device::Cpu)).remainder(args.classes);
    let noise = Tensor::randn([count, PARTS * args.width], options);
    let labels_of = (0..count).map(|i| Some((i % args.classes) as u32)).collect();
    FeatureSet::new(centers.index_select(0, &labels) + noise, labels_of)
}

/// Returns the seconds of the fastest round.
fn shortest(rounds: usize, mut work: impl FnMut() -> eval::Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        work()?;
        least = least.min(start.elapsed().as_secs_f64());
    }
    Ok(least)
}

/// Returns the seconds to read the images and compute the class tokens of a ViT-S/16, to do only the
/// first, and to do only the second.
fn extract(images: &str, rounds: usize) -> Result<[(&'static str, f64); 3]> {
    let config = DataConfig { path: Some(images.to_owned()), ..DataConfig::default() };
    let dataset = Arc::new(data::open(&config)?);
    let vars = nn::VarStore::new(Device::Cpu);
    let network = VisionTransformer::new(&vars.root(), &ModelConfig::default())?;
    let normalize = Normalize { mean: vec![0.5; 3], std: vec![0.25; 3] };
    let options = ExtractOptions::new(EvalTransform { resize: 256, crop: 224 }, normalize);
    let wanted = BTreeSet::from([ImageFeature::Cls(1)]);
    let extract = shortest(rounds, || {
        let network = Network { backbone: &network, fingerprint: "none" };
        let store = FeatureStore::default();
        store.features(network, &dataset, &options, &wanted, &mut |_, _| ()).map(|_| ())
    })?;
    let ExtractOptions { transform, batch, workers, .. } = options;
    let batches = || EvalLoader::new(Arc::clone(&dataset), transform, batch, workers, None);
    let loader = shortest(rounds, || {
        batches()?.try_for_each(|batch| batch.map(drop)).map_err(eval::Error::from)
    })?;
    let read = batches()?.collect::<data::Result<Vec<_>>>()?;
    let network = shortest(rounds, || {
        read.iter().try_for_each(|batch| {
            let input = to_input(&batch.images, &options.normalize, options.device)?;
            let _ = tch::no_grad(|| network.forward_cls(&input, Mode::Eval))?;
            Ok(())
        })
    })?;
    Ok([("extract", extract), (LOADER, loader), (NETWORK, network)])
}

fn print(args: &EvalArgs, times: &Map<String, Value>, losses: &[f64]) -> Result<()> {
    let mut text = format!(
        "{} training and {} test features with {} columns, {} classes, {} threads\n",
        args.train,
        args.test,
        args.width,
        args.classes,
        tch::get_num_threads()
    );
    for (name, seconds) in times {
        text += &format!("{name:<16} {:>10.4} s\n", seconds.as_f64().unwrap_or(f64::NAN));
    }
    if args.json {
        let summary = json!({
            "seconds": times,
            "threads": tch::get_num_threads(),
            "c": CS,
            "losses": losses,
            "width": args.width,
            "classes": args.classes,
            "steps": STEPS,
        });
        text += &format!("{summary}\n");
    }
    answer(&text)
}
