//! `simdino eval logistic`: logistic regression, compared with the same network untrained.

use std::collections::BTreeSet;

use eval::FeatureSet;
use eval::logistic::{FEW_SHOT_C, FewShotAccuracy, LogisticConfig, few_shot_logistic, logistic};
use eval::record::Record;
use serde_json::json;
use tch::Device;

use crate::console::note;
use crate::failure::Result;

use super::few_shots::FewShots;
use super::numbers::positive;
use super::outcome::{Measured, Outcome, measure_each, text_of};
use super::shared;
use super::subject::{LAST, Subject, Task};

/// Arguments of `simdino eval logistic`.
#[derive(Debug, clap::Args)]
pub struct LogisticArgs {
    #[command(flatten)]
    subject: Subject,
    #[command(flatten)]
    options: LogisticOptions,
}

/// Options of the protocol.
#[derive(Debug, Default, clap::Args)]
pub struct LogisticOptions {
    /// Candidates for C, of which a tenth of the training images chooses one; by default 45 from
    /// 1e-6 to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
    #[command(flatten)]
    few: FewShots,
}

/// Measures all networks.
pub fn run(args: &LogisticArgs) -> Result<Outcome> {
    let LogisticOptions { c, few } = &args.options;
    few.check()?;
    positive("--c", c)?;
    if !shared::extract(&args.subject, &BTreeSet::from([LAST]), true)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.subject.networks, &mut |opened| {
        measure(&args.options, &args.subject.task(opened, &BTreeSet::from([LAST]))?)
    })
}

/// Measures a network.
pub fn measure(options: &LogisticOptions, task: &Task<'_>) -> Result<Measured> {
    let mut config = LogisticConfig::default();
    config.device = task.opened.device;
    if !options.c.is_empty() {
        config.c.clone_from(&options.c);
    }
    let of = |[train, test]: &[FeatureSet; 2]| logistic(train, test, &config);
    let sets = [task.trained(&[LAST])?, task.untrained(&[LAST])?];
    let (trained, untrained) = (of(&sets[0])?, of(&sets[1])?);
    trained.notes.iter().chain(&options.few.note(&sets[0][0])).for_each(|text| note(text));
    // Notes that apply to both networks, such as those on the images, are printed only once.
    let own = untrained.notes.iter().filter(|text| !trained.notes.contains(text));
    own.for_each(|text| note(&format!("untrained: {text}")));
    let counts = [trained.num_train, trained.num_test];
    let mut record = task.record("logistic", counts, trained.classes)?;
    config.describe(&mut record);
    trained.describe(&untrained, &mut record);
    let few = few_shot(options, &sets, config.device, &mut record)?;
    let json = json!({
        "protocol": "logistic",
        "top1": trained.top1,
        "untrained": untrained.top1,
        "effective_rank": record.effective_rank,
        "step": task.opened.weights.step,
        "resize": record.resize,
        "crop": record.crop,
        "precision": record.precision,
        "few_shot": few,
        "record": record,
        "results": { "trained": trained, "untrained": untrained },
    });
    // The notes have been printed already, even if several networks share a table.
    let mut shown = record.clone();
    shown.notes.clear();
    let text = text_of(&shown);
    Ok(Measured { json, text, ..Measured::of(record)? })
}

/// Adds the scores with few images per class, if they are wanted, of the network and of the same
/// network untrained to the record, and returns those of the network.
fn few_shot(
    options: &LogisticOptions,
    [trained, untrained]: &[[FeatureSet; 2]; 2],
    device: Device,
    record: &mut Record,
) -> Result<Vec<FewShotAccuracy>> {
    let Some(subsets) = options.few.config() else { return Ok(Vec::new()) };
    let of = |[train, test]: &[FeatureSet; 2]| few_shot_logistic(train, test, &subsets, device);
    options.few.describe(record);
    record.set("few_shot_c", FEW_SHOT_C);
    let scores = of(trained)?;
    FewShotAccuracy::describe(&scores, None, record);
    FewShotAccuracy::describe(&of(untrained)?, Some("untrained"), record);
    Ok(scores)
}
