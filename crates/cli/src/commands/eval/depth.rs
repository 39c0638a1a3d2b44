//! `simdino eval depth`: monocular depth estimation with a linear head.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use data::dense::{DepthOptions, DepthSet};
use eval::depth::{
    DepthConfig, DepthData, DepthLayers, DepthScore, Estimator, LinearEstimator, MeanMap, Scored,
    check_scored, evaluate, state_file, train,
};
use eval::record::Record;
use eval::segmentation::{DenseExtractor, DenseNetwork};
use serde_json::Value;
use simdino::weights::data_config;

use crate::commands::eval::dense::skipped;
use crate::commands::eval::networks::{Networks, Opened};
use crate::commands::eval::numbers::positive;
use crate::commands::eval::outcome::{Measured, Outcome, measure_each};
use crate::console::{note, progress};
use crate::failure::{Failure, Result};
use crate::sizes::whole_patches;

/// Arguments of `simdino eval depth`.
#[derive(Debug, clap::Args)]
pub struct DepthArgs {
    #[command(flatten)]
    networks: Networks,
    /// Images to learn from: a folder, or a folder in a tar file, such as pack.tar/train/images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// Their depth maps, which have the same names: gray PNG of 16 bits, or .npy of meters; 0 is
    /// not measured
    #[arg(long, value_name = "FOLDER")]
    depth: PathBuf,
    /// Images whose depth is estimated
    #[arg(long, value_name = "FOLDER")]
    test_images: PathBuf,
    /// Their depth maps
    #[arg(long, value_name = "FOLDER")]
    test_depth: PathBuf,
    /// Value of a PNG at one meter: 1000 for NYU, 256 for KITTI
    #[arg(long, default_value_t = 1000.0)]
    pub divisor: f64,
    /// Largest depth, in meters: 10 for NYU, 80 for KITTI
    #[arg(long, default_value_t = 10.0)]
    pub max_depth: f64,
    /// Blocks whose tokens are used
    #[arg(long, value_enum, default_value = "last")]
    layers: LayersArg,
    /// Part of the test images that is scored
    #[arg(long, value_enum, default_value = "all")]
    scored: ScoredArg,
    /// Iterations of training; the warm-up keeps its share of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    pub iterations: Option<u64>,
    /// Side of the crops that the head is trained on, in pixels; by default 416 by 544
    #[arg(long, value_name = "N")]
    pub crop: Option<u32>,
    /// Images per iteration; by default 16
    #[arg(long)]
    pub batch: Option<NonZeroUsize>,
    /// Peak learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// Do not average the estimates of each test image and its mirror image
    #[arg(long)]
    no_test_flip: bool,
    /// File with names of images to learn from, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// File with names of images to test with, one per line; all if it is not given
    #[arg(long, value_name = "FILE")]
    test_list: Option<PathBuf>,
    /// Maximum number of images to learn from; all by default
    #[arg(long)]
    pub max_train: Option<NonZeroUsize>,
    /// Maximum number of images to test with; all by default
    #[arg(long)]
    pub max_test: Option<NonZeroUsize>,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
    /// Seed of all random choices
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Whether this is part of `eval all`, where options have other names.
    #[arg(skip)]
    of_all: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LayersArg {
    /// The last block
    Last,
    /// Four blocks at the ends of the quarters of the network
    Four,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScoredArg {
    /// All pixels
    All,
    /// Eigen's crop of NYU, of images of 640x480
    Nyu,
    /// Garg's crop of KITTI
    Garg,
}

/// The images to train the head on and those to test it with.
struct Sets {
    train: DepthSet,
    test: DepthSet,
}

impl DepthArgs {
    /// Returns the arguments of `eval all` for the published settings. `folders` are the training images and their
    /// depth maps, then the test images and theirs.
    pub fn of(networks: Networks, [images, depth, test_images, test_depth]: [PathBuf; 4]) -> Self {
        Self {
            networks,
            images,
            depth,
            test_images,
            test_depth,
            divisor: 1000.0,
            max_depth: 10.0,
            layers: LayersArg::Last,
            scored: ScoredArg::All,
            iterations: None,
            crop: None,
            batch: None,
            lr: None,
            no_test_flip: false,
            list: None,
            test_list: None,
            max_train: None,
            max_test: None,
            skip_untrained: false,
            seed: 0,
            of_all: true,
        }
    }

    /// Opens both sets in the pixel format of the network, and prints what is left out.
    fn sets(&self, opened: &Opened) -> Result<Sets> {
        let option = if self.of_all { "--dense-crop" } else { "--crop" };
        self.crop.map_or(Ok(()), |crop| whole_patches(option, crop, &opened.weights.model))?;
        let set = |images: &Path, maps: &Path, list: &Option<PathBuf>| {
            let mut options = DepthOptions::new(self.divisor)?;
            options.list.clone_from(list);
            options.pixels = data_config(&opened.weights, "").pixels();
            let set = DepthSet::open(images, maps, options)?;
            set.notices().iter().for_each(|text| note(text));
            Ok::<_, Failure>(set)
        };
        Ok(Sets {
            train: set(&self.images, &self.depth, &self.list)?,
            test: set(&self.test_images, &self.test_depth, &self.test_list)?,
        })
    }

    fn config(&self) -> DepthConfig {
        let mut config = DepthConfig::default();
        if let Some(iterations) = self.iterations {
            config = config.with_iterations(iterations);
        }
        config.layers = match self.layers {
            LayersArg::Last => DepthLayers::Last,
            LayersArg::Four => DepthLayers::Four,
        };
        config.scored = match self.scored {
            ScoredArg::All => Scored::All,
            ScoredArg::Nyu => Scored::Nyu,
            ScoredArg::Garg => Scored::Garg,
        };
        config.crop = self.crop.map_or(config.crop, |side| [side; 2]);
        config.batch = self.batch.map_or(config.batch, usize::from);
        config.lr = self.lr.unwrap_or(config.lr);
        (config.max_depth, config.seed) = (self.max_depth, self.seed);
        config.test_flip = !self.no_test_flip;
        config
    }
}

/// Measures all networks.
pub fn run(args: &DepthArgs) -> Result<Outcome> {
    for (option, value) in [
        ("--divisor", Some(args.divisor)),
        ("--max-depth", Some(args.max_depth)),
        ("--lr", args.lr),
    ] {
        positive(option, value.as_slice())?;
    }
    measure_each(&args.networks, &mut |opened| measure(args, opened))
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the images or their depth maps cannot be read.
pub fn measure(args: &DepthArgs, opened: &Opened) -> Result<Measured> {
    let (sets, config) = (args.sets(opened)?, args.config());
    let data = |set, limit: Option<NonZeroUsize>| DepthData {
        set,
        limit: limit.map(NonZeroUsize::get),
        workers: None,
    };
    let [train, test] = [data(&sets.train, args.max_train), data(&sets.test, args.max_test)];
    // Training may take days, so what would fail after it is checked first.
    check_scored(&test, &config)?;
    let task = Task { args, opened, config: &config, train, test };
    let meter = opened.metered(&opened.weights.backbone);
    let trained = task.scored(&meter, &opened.fingerprint, &|| meter.restart())?;
    let spread = meter.spread()?;
    let mean_map = MeanMap::new(&train, &config)?;
    let (mean_map, _, _) = task.tested(&mean_map)?;
    let mut record = task.record(&trained)?;
    spread.into_iter().for_each(|spread| record.spread(spread));
    put(&mut record, "mean map", &mean_map);
    if !args.skip_untrained {
        let untrained = opened.untrained()?;
        let network = untrained.network();
        put(
            &mut record,
            "untrained",
            &task.scored(network.backbone, network.fingerprint, &|| ())?.score,
        );
    }
    Measured::of(record)
}

fn put(record: &mut Record, of: &str, score: &DepthScore) {
    score.named().iter().for_each(|(name, value)| record.baseline(of, name, *value));
}

/// Everything that the trained and the untrained network share.
struct Task<'a> {
    args: &'a DepthArgs,
    opened: &'a Opened,
    config: &'a DepthConfig,
    train: DepthData<'a>,
    test: DepthData<'a>,
}

/// Scores of one network.
struct OfNetwork {
    score: DepthScore,
    /// Numbers of images that were trained on and scored.
    images: [usize; 2],
    notes: Vec<String>,
}

impl Task<'_> {
    /// Trains a head, and calls `tests` before its test.
    fn scored(
        &self,
        network: &dyn DenseExtractor,
        fingerprint: &str,
        tests: &dyn Fn(),
    ) -> Result<OfNetwork> {
        let (config, frozen) = (self.config, self.opened.frozen(network));
        let network = DenseNetwork { frozen, layers: config.layers.layers(), class_token: true };
        let folder = self.args.networks.folder_of_results(&self.opened.path);
        let state =
            folder.map(|folder| state_file(&folder, fingerprint, &network, &self.train, config));
        let state = state.transpose()?;
        let bar = progress(usize::try_from(config.iterations).unwrap_or(usize::MAX), "iterations");
        let (head, report) =
            train(network, &self.train, config, state.as_ref(), &mut |done, _| {
                bar.set_position(done)
            })?;
        bar.finish_and_clear();
        if report.resumed_at > 0 {
            note(&format!("training of the head resumed at iteration {}", report.resumed_at));
        }
        let estimator = LinearEstimator { network, head, config: config.clone() };
        tests();
        let (score, images, note) = self.tested(&estimator)?;
        let notes = [skipped("training", &report.broken), note].into_iter().flatten().collect();
        Ok(OfNetwork { score, images: [report.images, images], notes })
    }

    /// Scores an estimator on the test set. Returns the score, the number of images, and a sentence
    /// about images that were left out.
    fn tested(&self, estimator: &dyn Estimator) -> Result<(DepthScore, usize, Option<String>)> {
        let all = self.test.set.len();
        let bar = progress(self.test.limit.unwrap_or(all).min(all), "images tested");
        let evaluated = evaluate(&self.test, estimator, self.config, &mut || bar.inc(1))?;
        bar.finish_and_clear();
        Ok((evaluated.score, evaluated.images, skipped("test", &evaluated.broken)))
    }

    fn record(&self, trained: &OfNetwork) -> Result<Record> {
        let mut record = self.opened.record("depth");
        if let Value::Object(settings) = serde_json::to_value(self.config)? {
            settings.into_iter().for_each(|(name, value)| record.set(&name, value));
        }
        record.set("divisor", self.args.divisor);
        record.limits([self.train.limit, self.test.limit]);
        record.data = vec![
            self.train.used("train", trained.images[0]),
            self.test.used("test", trained.images[1]),
        ];
        trained.score.named().iter().for_each(|(name, value)| record.score(name, *value));
        trained.notes.iter().for_each(|text| record.note(text));
        Ok(record)
    }
}
