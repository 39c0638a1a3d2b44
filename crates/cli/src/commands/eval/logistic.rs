//! `simdino eval logistic`: logistic regression, compared with the same network untrained.

use std::collections::BTreeSet;

use eval::FeatureSet;
use eval::logistic::{LogisticConfig, logistic};
use serde_json::json;

use crate::console::note;
use crate::failure::{Failure, Result};

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
}

/// Measures all networks.
pub fn run(args: &LogisticArgs) -> Result<Outcome> {
    let c = &args.options.c;
    if c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
        return Err(Failure::usage(format!(
            "--c: every number must be greater than 0 (got {c:?})"
        )));
    }
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
    let (trained, untrained) = (of(&task.trained(&[LAST])?)?, of(&task.untrained(&[LAST])?)?);
    trained.notes.iter().for_each(|text| note(text));
    // Notes that apply to both networks, such as those on the images, are printed only once.
    let own = untrained.notes.iter().filter(|text| !trained.notes.contains(text));
    own.for_each(|text| note(&format!("untrained: {text}")));
    let counts = [trained.num_train, trained.num_test];
    let mut record = task.record("logistic", counts, trained.classes)?;
    config.describe(&mut record);
    trained.describe(&untrained, &mut record);
    let json = json!({
        "protocol": "logistic",
        "top1": trained.top1,
        "untrained": untrained.top1,
        "effective_rank": record.effective_rank,
        "step": task.opened.weights.step,
        "resize": record.resize,
        "crop": record.crop,
        "precision": record.precision,
        "results": { "trained": trained, "untrained": untrained },
    });
    // The notes have been printed already, even if several networks share a table.
    let mut shown = record.clone();
    shown.notes.clear();
    let text = text_of(&shown);
    Ok(Measured { json, text, ..Measured::of(record)? })
}
