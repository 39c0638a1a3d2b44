//! `simdino eval in-context`: segmentation from the most similar patches in a memory.

use std::num::NonZeroUsize;

use eval::segmentation::in_context::{IgnoredPixels, InContextConfig, Memory};
use eval::segmentation::{DenseData, DenseNetwork, Layers, Metered};

use crate::commands::eval::networks::Opened;
use crate::commands::eval::numbers::{at_least_one, positive};
use crate::commands::eval::outcome::{Measured, Outcome, measure_each};
use crate::commands::eval::sheet::Sheet;
use crate::console::progress;
use crate::failure::Result;

use super::kept::KeptMaps;
use super::scored::{About, Scored, record, score};
use super::shared;
use super::subject::DenseSubject;

/// Arguments of `simdino eval in-context`.
#[derive(Debug, clap::Args)]
pub struct InContextArgs {
    #[command(flatten)]
    subject: DenseSubject,
    #[command(flatten)]
    maps: KeptMaps,
    /// Neighbors of a patch
    #[arg(long, default_value_t = 30)]
    k: usize,
    /// Temperature of the weights of neighbors
    #[arg(long, default_value_t = 0.02)]
    temperature: f64,
    /// Maximum number of patches in memory
    #[arg(long, default_value = "1048576")]
    memory: NonZeroUsize,
    /// Fill the memory from this many passes over random views of the images to learn from; 0 = one
    /// pass over whole images
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "features")]
    augmented_passes: u64,
    /// Count ignored pixels as class 0 in the memory, as the public code of Hummingbird does
    #[arg(long)]
    ignored_are_class_zero: bool,
}

impl InContextArgs {
    /// Returns the arguments for the published settings.
    pub fn of(subject: DenseSubject, maps: KeptMaps) -> Self {
        let InContextConfig { k, temperature, memory, .. } = InContextConfig::default();
        let memory = NonZeroUsize::new(memory).unwrap_or(NonZeroUsize::MIN);
        let (augmented_passes, ignored_are_class_zero) = (0, false);
        Self { subject, maps, k, temperature, memory, augmented_passes, ignored_are_class_zero }
    }
}

/// Measures all networks.
pub fn run(args: &InContextArgs) -> Result<Outcome> {
    at_least_one("--k", &[args.k])?;
    positive("--temperature", &[args.temperature])?;
    let mut sheet = Sheet::new(args.subject.picture.as_deref())?;
    if !shared::extract(&args.subject, &args.maps, InContextConfig::default().side)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.subject.networks, &mut |opened| measure(args, opened, &mut sheet))
}

/// Measures a network and adds its pictures to the sheet.
pub fn measure(args: &InContextArgs, opened: &Opened, sheet: &mut Sheet) -> Result<Measured> {
    let subject = &args.subject;
    let sets = subject.sets(opened)?;
    let mut config = InContextConfig::default();
    (config.k, config.temperature, config.memory) = (args.k, args.temperature, args.memory.get());
    (config.seed, config.side) = (subject.seed, subject.crop().unwrap_or(config.side));
    (config.mask, config.augmented) = (subject.mask(config.mask), args.augmented_passes);
    if args.ignored_are_class_zero {
        config.ignored = IgnoredPixels::ClassZero;
    }
    let [train, test] = subject.data(&sets);
    let last = Layers::Last(1);
    let kept = args.maps.extractor(opened, opened.network())?;
    let meter = opened.metered(&kept);
    let own = subject.network(opened, &meter, last);
    config.side = own.whole_patches(config.side);
    let trained = measured(own, &train, &test, &config, (subject, Some(&meter)))?;
    kept.finish();
    let backbone = (!subject.skip_untrained).then(|| opened.untrained()).transpose()?;
    let untrained = backbone.as_ref().map(|untrained| {
        let kept = args.maps.extractor(opened, untrained.network())?;
        let network = subject.network(opened, &kept, last);
        measured(network, &train, &test, &config, (subject, None))
    });
    let untrained = untrained.transpose()?;
    let about = About { subject, opened, sets: &sets };
    about.draw(sheet, "", &trained);
    untrained.iter().for_each(|scored| about.draw(sheet, ", untrained", scored));
    let mut record = record("in-context", &about, &config, &trained, untrained.as_ref())?;
    (record.crop, record.mask_size) = (Some(config.side), config.mask.side());
    Measured::of(record)
}

fn measured(
    network: DenseNetwork<'_>,
    train: &DenseData<'_>,
    test: &DenseData<'_>,
    config: &InContextConfig,
    (subject, meter): (&DenseSubject, Option<&Metered<'_>>),
) -> Result<Scored> {
    let bar = progress(train.set.len(), "images added to memory");
    let memory = Memory::new(network, train, config, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let picture = subject.picture.is_some();
    let mut scored = score(&memory, test, config.mask, picture, meter)?;
    scored.chosen.push(("patches_in_memory", memory.len().into()));
    Ok(scored.trained_on(memory.images, &memory.broken))
}
