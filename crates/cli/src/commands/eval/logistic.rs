//! `simdino eval logistic`: logistic regression, beside the same network untrained.

use eval::FeatureSet;
use eval::logistic::{LogisticConfig, logistic};
use serde_json::json;

use crate::console::note;
use crate::failure::{Failure, Result};

use super::networks::Opened;
use super::outcome::{Measured, measure_each};
use super::subject::Subject;

/// What `eval logistic` takes.
#[derive(Debug, clap::Args)]
pub struct LogisticArgs {
    #[command(flatten)]
    subject: Subject,
    /// Candidates for C, of which a tenth of the train images chooses one; by default 45 from 1e-6
    /// to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
}

/// Runs the verb.
pub fn run(args: &LogisticArgs) -> Result<()> {
    if args.c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
        return Err(Failure::usage(format!(
            "--c: every number must be above 0 (got {:?})",
            args.c
        )));
    }
    measure_each(&args.subject.networks, &mut |opened| measure(args, opened))
}

fn measure(args: &LogisticArgs, opened: &Opened) -> Result<Measured> {
    let subject = &args.subject;
    let sets = subject.sets(opened)?;
    let mut config = LogisticConfig::default();
    config.device = opened.device;
    if !args.c.is_empty() {
        config.c.clone_from(&args.c);
    }
    let of = |[train, test]: &[FeatureSet; 2]| logistic(train, test, &config);
    let features = subject.class_tokens(opened, opened.network(), &sets)?;
    let trained = of(&features)?;
    let untrained = opened.untrained()?;
    let untrained = of(&subject.class_tokens(opened, untrained.network(), &sets)?)?;
    for (name, result) in [("this network", &trained), ("untrained", &untrained)] {
        result.notes.iter().for_each(|text| note(&format!("{name}: {text}")));
    }
    let mut record = opened.record("logistic");
    config.describe(&mut record);
    trained.describe(&untrained, &mut record);
    record.spread(&features[0])?;
    let counts = [trained.num_train, trained.num_test];
    subject.describe(&mut record, &sets, counts, trained.classes);
    let json = json!({
        "protocol": "logistic",
        "top1": trained.top1,
        "untrained": untrained.top1,
        "effective_rank": record.effective_rank,
        "step": opened.weights.step,
        "resize": opened.transform.resize,
        "crop": opened.transform.crop,
        "precision": record.precision,
        "results": { "trained": trained, "untrained": untrained },
    });
    Ok(Measured { json, ..Measured::of(record)? })
}
