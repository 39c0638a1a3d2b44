//! `simdino eval linear`: linear heads on frozen features, compared with the same network
//! untrained.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use clap::ValueEnum;
use eval::linear::{EpochLength, HeadInput, LinearConfig};
use protocols::labeled::{LabeledProtocol, LabeledTask, Linear, LinearMeasured};
use serde_json::json;

use crate::failure::{Failure, Result};

use super::labeled::LabeledArgs;
use super::numbers::positive;
use super::outcome::{Measured, Outcome, measure_each};
use super::shared;
use super::terminal::Terminal;

/// Arguments of `simdino eval linear`.
#[derive(Debug, clap::Args)]
pub struct LinearArgs {
    #[command(flatten)]
    labeled: LabeledArgs,
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
#[derive(Debug, clap::Args)]
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
    skip_untrained: bool,
}

fn epoch_length(word: &str) -> std::result::Result<EpochLength, String> {
    if word == "pass" {
        return Ok(EpochLength::Pass);
    }
    let steps = word.parse::<NonZeroUsize>();
    let steps = steps.map_err(|_| "expected an integer of at least 1, or 'pass'".to_owned())?;
    Ok(EpochLength::Steps(steps.get()))
}

impl LinearOptions {
    fn protocol(&self) -> Linear {
        let (fresh, skip_untrained) = (self.fresh, self.skip_untrained);
        Linear { config: self.config(), fresh, skip_untrained }
    }

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

/// Measures all networks.
pub fn run(args: &LinearArgs) -> Result<Outcome> {
    let LinearOptions { rates, blocks, .. } = &args.options;
    positive("--rates", rates)?;
    if blocks.contains(&0) {
        return Err(Failure::usage("--blocks: every number must be at least 1 (got 0)"));
    }
    let (linear, terminal) = (args.options.protocol(), Terminal::default());
    if !shared::extract(&args.labeled, &linear.features(), !linear.skip_untrained)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.labeled.networks, &mut |subject| {
        linear.fits(subject)?;
        let images = args.labeled.images(subject)?;
        measure(&linear, &LabeledTask::open(&images, subject, &linear.features(), &terminal)?)
    })
}

/// Measures a network.
pub fn measure(linear: &Linear, task: &LabeledTask<'_>) -> Result<Measured> {
    let LinearMeasured { trained, untrained, record, .. } = linear.measure(task)?;
    let json = json!({
        "record": record,
        "protocol": "linear",
        "top1": trained.top1,
        "untrained": untrained.as_ref().map(|result| result.top1),
        "step": task.subject.weights.step,
        "resize": record.resize,
        "crop": record.crop,
        "precision": record.precision,
        "results": { "trained": trained, "untrained": untrained },
    });
    Ok(Measured { json, ..Measured::of_one(record)? })
}
