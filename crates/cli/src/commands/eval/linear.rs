//! `simdino eval linear`: linear heads on frozen features, compared with the same network
//! untrained.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use eval::FeatureSet;
use eval::linear::{EpochLength, FreshImages, HeadInput, LinearConfig, LinearProbe, LinearResult};
use eval::store::{ImageFeature, Network};
use serde_json::json;

use crate::console::{note, progress};
use crate::failure::{Failure, Result};

use super::networks::Opened;
use super::numbers::positive;
use super::outcome::{Measured, Outcome, measure_each};
use super::shared;
use super::subject::{LAST, Subject, Task};

/// Arguments of `simdino eval linear`.
#[derive(Debug, clap::Args)]
pub struct LinearArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    options: LinearOptions,
}

/// A published protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Preset {
    /// One head on the class tokens of the last four blocks, 100 epochs of SGD
    Dino,
    /// 52 heads: 13 rates, 1 or 4 blocks, with and without the mean of the patches; 12,500 steps of
    /// SGD
    #[default]
    Dinov2,
    /// 16 heads: 8 rates, 1 or 2 blocks, with the mean of the patches; 12,500 steps of SGD
    Simdinov2,
    /// One head on the class token, 100 epochs of AdamW in batches of 512
    Adamw,
}

/// Whether the mean of the patch tokens is appended to the class tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MeanPatches {
    /// Nothing
    No,
    /// The mean of the patch tokens of the last block
    Yes,
    /// Heads of both kinds
    Both,
}

/// Options of the protocol.
#[derive(Debug, Default, clap::Args)]
pub struct LinearOptions {
    /// Published protocol; the options below override parts of it
    #[arg(long, value_enum, default_value_t)]
    protocol: Preset,
    /// Number of last blocks whose class tokens a head uses; a list makes heads of each kind
    #[arg(long, value_delimiter = ',', value_name = "N")]
    blocks: Vec<u8>,
    /// Whether the mean of the patch tokens follows the class tokens
    #[arg(long, value_enum)]
    mean_patch: Option<MeanPatches>,
    /// Learning rates of heads, which are multiplied by the batch size over 256 (not for AdamW)
    #[arg(long, value_delimiter = ',', value_name = "RATE")]
    rates: Vec<f64>,
    /// Images per step of the heads
    #[arg(long, value_name = "N")]
    head_batch: Option<NonZeroUsize>,
    /// Epochs
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,
    /// Steps of an epoch; 'pass' means one pass through the images
    #[arg(long, value_name = "N|pass", value_parser = epoch_length)]
    epoch_steps: Option<EpochLength>,
    /// Learn from random crops, which are embedded anew in every epoch, as published; by default
    /// from features of the center crop, which are computed once
    #[arg(long)]
    fresh: bool,
    /// Hold out a tenth of the training images to choose the head and the epoch; by default, the
    /// test images choose, as for published numbers
    #[arg(long)]
    holdout: bool,
    /// Seed of the initial weights, the order of the images, and the held-out images
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Do not measure the same network untrained, which takes as long again
    #[arg(long, alias = "no-untrained")]
    pub skip_untrained: bool,
}

fn epoch_length(word: &str) -> std::result::Result<EpochLength, String> {
    if word == "pass" {
        return Ok(EpochLength::Pass);
    }
    let steps = word.parse::<NonZeroUsize>();
    let steps = steps.map_err(|_| "expected an integer of at least 1, or 'pass'".to_owned())?;
    Ok(EpochLength::Steps(steps.get()))
}

/// Measures all networks.
pub fn run(args: &LinearArgs) -> Result<Outcome> {
    let LinearOptions { rates, blocks, .. } = &args.options;
    positive("--rates", rates)?;
    if blocks.contains(&0) {
        return Err(Failure::usage("--blocks: every number must be at least 1 (got 0)"));
    }
    let untrained = !args.options.skip_untrained;
    if !shared::extract(&args.subject, &wanted(&args.options), untrained)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.subject.networks, &mut |opened| {
        check_depth(&args.options.config(), opened)?;
        measure(&args.options, &args.subject.task(opened, &wanted(&args.options))?)
    })
}

/// Returns the features that the protocol needs.
pub fn wanted(options: &LinearOptions) -> BTreeSet<ImageFeature> {
    options.config().features().into_iter().chain([LAST]).collect()
}

impl LinearOptions {
    fn config(&self) -> LinearConfig {
        let mut config = match self.protocol {
            Preset::Dino => LinearConfig::dino(),
            Preset::Dinov2 => LinearConfig::dinov2(),
            Preset::Simdinov2 => LinearConfig::simdinov2(),
            Preset::Adamw => LinearConfig::adamw(),
        };
        let usual = |of: &dyn Fn(&HeadInput) -> u8| -> BTreeSet<u8> {
            config.inputs.iter().map(of).collect()
        };
        let blocks = match self.blocks.as_slice() {
            [] => usual(&|input| input.blocks),
            given => given.iter().copied().collect(),
        };
        let means = match self.mean_patch {
            None => usual(&|input| u8::from(input.mean_patch)),
            Some(MeanPatches::No) => BTreeSet::from([0]),
            Some(MeanPatches::Yes) => BTreeSet::from([1]),
            Some(MeanPatches::Both) => BTreeSet::from([0, 1]),
        };
        let inputs = blocks.iter().flat_map(|&blocks| {
            means.iter().map(move |&mean| HeadInput { blocks, mean_patch: mean == 1 })
        });
        config.inputs = inputs.collect();
        if !self.rates.is_empty() {
            config.rates.clone_from(&self.rates);
        }
        config.batch = self.head_batch.map_or(config.batch, NonZeroUsize::get);
        config.epochs = self.epochs.map_or(config.epochs, NonZeroUsize::get);
        config.epoch_length = self.epoch_steps.unwrap_or(config.epoch_length);
        (config.holdout, config.seed) = (self.holdout, self.seed);
        config
    }
}

/// Checks that the network has as many blocks as the heads use.
fn check_depth(config: &LinearConfig, opened: &Opened) -> Result<()> {
    let depth = opened.weights.backbone.depth();
    match config.inputs.iter().map(|input| input.blocks).find(|&blocks| i64::from(blocks) > depth) {
        Some(blocks) => Err(Failure::failed(format!(
            "heads on the last {blocks} blocks do not fit this network of {depth} blocks: choose \
             fewer with --blocks"
        ))),
        None => Ok(()),
    }
}

/// Measures a network.
pub fn measure(options: &LinearOptions, task: &Task<'_>) -> Result<Measured> {
    let mut config = options.config();
    check_depth(&config, task.opened)?;
    config.device = task.opened.device;
    let parts = config.features();
    let probe =
        |features: &[FeatureSet; 2], network| train(options, task, &config, features, network);
    let trained = probe(&task.trained(&parts)?, task.opened.network())?;
    trained.notes.iter().for_each(|text| note(text));
    let untrained = if options.skip_untrained {
        None
    } else {
        let untrained = probe(&task.untrained(&parts)?, task.untrained_network()?)?;
        let new = untrained.notes.iter().filter(|text| !trained.notes.contains(text));
        new.for_each(|text| note(&format!("untrained: {text}")));
        Some(untrained)
    };
    let counts = [trained.num_train + trained.num_held_out, trained.num_test];
    let mut record = task.record("linear", counts, trained.classes)?;
    config.describe(&mut record);
    record.set("fresh", options.fresh);
    trained.describe(untrained.as_ref(), &mut record);
    let json = json!({
        "record": record,
        "protocol": "linear",
        "top1": trained.top1,
        "untrained": untrained.as_ref().map(|result| result.top1),
        "step": task.opened.weights.step,
        "resize": record.resize,
        "crop": record.crop,
        "precision": record.precision,
        "results": { "trained": trained, "untrained": untrained },
    });
    Ok(Measured { json, ..Measured::of(record)? })
}

/// Trains the heads. Continues an interrupted training if there is a folder for features.
fn train(
    options: &LinearOptions,
    task: &Task<'_>,
    config: &LinearConfig,
    [train, test]: &[FeatureSet; 2],
    network: Network<'_>,
) -> Result<LinearResult> {
    let fresh = FreshImages {
        dataset: &task.train,
        indices: task.train_indices(),
        network: network.backbone,
        options: &task.extract,
    };
    let mut probe = LinearProbe::new(train, test, config, options.fresh.then_some(fresh))?;
    let folder = task.subject.embedding.folder(&task.opened.path);
    let identity = task.identity(network);
    let bar = progress(probe.progress().1, "training steps of the heads");
    let place = folder.as_deref().map(|folder| (folder, identity.as_str()));
    probe.run(place, &mut |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    Ok(probe.result()?)
}
