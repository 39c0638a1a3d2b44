//! `simdino eval logistic`: logistic regression, compared with the same network untrained.

use protocols::labeled::{LabeledProtocol, LabeledTask, Logistic, LogisticMeasured};
use serde_json::json;

use crate::failure::Result;

use super::few_shots::FewShots;
use super::labeled::LabeledArgs;
use super::numbers::positive;
use super::outcome::{Measured, Outcome, measure_each, text_of};
use super::shared;
use super::terminal::Terminal;

/// Arguments of `simdino eval logistic`.
#[derive(Debug, clap::Args)]
pub struct LogisticArgs {
    #[command(flatten)]
    labeled: LabeledArgs,
    #[command(flatten)]
    options: LogisticOptions,
}

/// Options of the protocol.
#[derive(Debug, clap::Args)]
pub struct LogisticOptions {
    /// Candidates for C, of which a tenth of the training images chooses one; by default 45 from
    /// 1e-6 to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
    #[command(flatten)]
    few: FewShots,
}

impl LogisticOptions {
    fn protocol(&self) -> Logistic {
        let mut logistic = Logistic { few: self.few.config(), ..Logistic::default() };
        if !self.c.is_empty() {
            logistic.config.c.clone_from(&self.c);
        }
        logistic
    }
}

/// Measures all networks.
pub fn run(args: &LogisticArgs) -> Result<Outcome> {
    let LogisticOptions { c, few } = &args.options;
    few.check()?;
    positive("--c", c)?;
    let (logistic, terminal) = (args.options.protocol(), Terminal::default());
    if !shared::extract(&args.labeled, &logistic.features(), true)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.labeled.networks, &mut |subject| {
        let images = args.labeled.images(subject)?;
        measure(&logistic, &LabeledTask::open(&images, subject, &logistic.features(), &terminal)?)
    })
}

/// Measures a network.
pub fn measure(logistic: &Logistic, task: &LabeledTask<'_>) -> Result<Measured> {
    let LogisticMeasured { trained, untrained, few, record, .. } = logistic.measure(task)?;
    let json = json!({
        "protocol": "logistic",
        "top1": trained.top1,
        "untrained": untrained.top1,
        "effective_rank": record.effective_rank,
        "step": task.subject.weights.step,
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
    Ok(Measured { json, text, ..Measured::of_one(record)? })
}
