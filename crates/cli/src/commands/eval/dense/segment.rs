//! `simdino eval segment`: semantic segmentation with a linear head.

use std::num::NonZeroUsize;

use clap::ValueEnum;
use clap::builder::PossibleValue;
use eval::segmentation::linear::{LinearConfig, LinearSegmenter, Recipe, StateFile, train};
use eval::segmentation::{DenseData, DenseNetwork, MaskSize, Metered};

use crate::commands::eval::networks::Opened;
use crate::commands::eval::numbers::positive;
use crate::commands::eval::outcome::{Measured, Outcome, measure_each};
use crate::commands::eval::sheet::Sheet;
use crate::console::{note, progress};
use crate::failure::Result;

use super::scored::{About, Scored, record, score};
use super::subject::{DenseSets, DenseSubject};

/// Default memory limit for cached features, in GB.
const CACHE_GB: f64 = 8.0;

/// Arguments of `simdino eval segment`.
#[derive(Debug, clap::Args)]
pub struct SegmentArgs {
    #[command(flatten)]
    subject: DenseSubject,
    /// Published recipe, which provides the defaults of the other options
    #[arg(long, value_enum, default_value = "dinov3")]
    recipe: Named,
    /// Iterations of training; the warm-up keeps its share of them
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    iterations: Option<u64>,
    /// Peak learning rate
    #[arg(long)]
    lr: Option<f64>,
    /// Images per iteration; by default that of the recipe
    #[arg(long)]
    batch: Option<NonZeroUsize>,
    /// Distance from one test window to the next, in pixels; by default two thirds of the crop
    #[arg(long)]
    stride: Option<u32>,
    /// Compute the features of the training images once, without augmentation: for short runs
    #[arg(long)]
    cached: bool,
    /// Memory limit for cached features, in GB
    #[arg(long, default_value_t = CACHE_GB)]
    cache_gb: f64,
}

/// A [`Recipe`] by its name.
#[derive(Debug, Clone, Copy)]
struct Named(&'static str, Recipe);

const NAMED: [Named; Recipe::ALL.len()] = {
    let mut named = [Named("", Recipe::Dinov3); Recipe::ALL.len()];
    let mut i = 0;
    while i < named.len() {
        named[i] = Named(Recipe::ALL[i].0, Recipe::ALL[i].1);
        i += 1;
    }
    named
};

impl ValueEnum for Named {
    fn value_variants<'a>() -> &'a [Self] {
        &NAMED
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.0))
    }
}

impl SegmentArgs {
    /// Returns the arguments for the default recipe with `iterations` iterations, on features that
    /// are computed only once.
    pub fn shortened(subject: DenseSubject, iterations: u64) -> Self {
        Self {
            subject,
            recipe: Named("dinov3", Recipe::Dinov3),
            iterations: Some(iterations),
            lr: None,
            batch: None,
            stride: None,
            cached: true,
            cache_gb: CACHE_GB,
        }
    }
}

/// Measures all networks.
pub fn run(args: &SegmentArgs) -> Result<Outcome> {
    positive("--lr", args.lr.as_slice())?;
    let mut sheet = Sheet::new(args.subject.picture.as_deref())?;
    measure_each(&args.subject.networks, &mut |opened| measure(args, opened, &mut sheet))
}

/// Measures a network and adds its pictures to the sheet.
pub fn measure(args: &SegmentArgs, opened: &Opened, sheet: &mut Sheet) -> Result<Measured> {
    let subject = &args.subject;
    let sets = subject.sets(opened)?;
    let mut config = LinearConfig::of(args.recipe.1);
    let meter = opened.metered(&opened.weights.backbone);
    let own = subject.network(opened, &meter, config.layers);
    config = overridden(args, config, &own);
    let mask = subject.mask(MaskSize::Original);
    let task = Task { args, opened, sets: &sets, config: &config, mask };
    let trained = task.scored(own, &opened.fingerprint, Some(&meter))?;
    let backbone = (!subject.skip_untrained).then(|| opened.untrained()).transpose()?;
    let untrained = backbone.as_ref().map(|untrained| {
        let network = untrained.network();
        let dense = subject.network(opened, network.backbone, config.layers);
        task.scored(dense, network.fingerprint, None)
    });
    let untrained = untrained.transpose()?;
    let about = About { subject, opened, sets: &sets };
    about.draw(sheet, "", &trained);
    untrained.iter().for_each(|scored| about.draw(sheet, ", untrained", scored));
    let mut record = record("segment", &about, &config, &trained, untrained.as_ref())?;
    (record.crop, record.mask_size) = (Some(config.crop), mask.side());
    record.set("mask", serde_json::to_value(mask)?);
    if config.cached {
        record.note("features of the training images were computed once, without augmentation");
    }
    Measured::of(record)
}

/// Applies the values from the command line to the config of the recipe.
fn overridden(
    args: &SegmentArgs,
    config: LinearConfig,
    network: &DenseNetwork<'_>,
) -> LinearConfig {
    let crop = args.subject.crop().unwrap_or(config.crop);
    let mut config = config.with_crop(network.whole_patches(crop));
    if let Some(iterations) = args.iterations {
        config = config.with_iterations(iterations);
    }
    config.lr = args.lr.unwrap_or(config.lr);
    config.stride = args.stride.unwrap_or(config.stride);
    config.batch = args.batch.map_or(config.batch, usize::from);
    (config.cached, config.cache_gb, config.seed) = (args.cached, args.cache_gb, args.subject.seed);
    config
}

/// Everything that the trained and the untrained network share.
struct Task<'a> {
    args: &'a SegmentArgs,
    opened: &'a Opened,
    sets: &'a DenseSets,
    config: &'a LinearConfig,
    mask: MaskSize,
}

impl Task<'_> {
    fn scored(
        &self,
        network: DenseNetwork<'_>,
        fingerprint: &str,
        meter: Option<&Metered<'_>>,
    ) -> Result<Scored> {
        let (config, subject) = (self.config, &self.args.subject);
        let [train_data, test] = subject.data(self.sets);
        let state = self.state(fingerprint, &network, &train_data)?;
        let bar = progress(usize::try_from(config.iterations).unwrap_or(usize::MAX), "iterations");
        let (head, report) =
            train(network, &train_data, config, state.as_ref(), &mut |done, _| {
                bar.set_position(done);
            })?;
        bar.finish_and_clear();
        if report.resumed_at > 0 {
            note(&format!("training of the head resumed at iteration {}", report.resumed_at));
        }
        let segmenter = LinearSegmenter { network, head, config: config.clone() };
        let picture = subject.picture.is_some();
        let scored = score(&segmenter, &test, self.mask, picture, meter)?;
        Ok(scored.trained_on(report.images, &report.broken))
    }

    /// Returns the file that the state of the training is saved in; `None` if there is no folder
    /// for results.
    fn state(
        &self,
        fingerprint: &str,
        network: &DenseNetwork<'_>,
        data: &DenseData<'_>,
    ) -> Result<Option<StateFile>> {
        let folder = self.args.subject.networks.folder_of_results(&self.opened.path);
        let file = |folder| StateFile::in_folder(folder, fingerprint, network, data, self.config);
        Ok(folder.as_deref().map(file).transpose()?)
    }
}
