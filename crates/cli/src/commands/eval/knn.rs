//! `simdino eval knn`: weighted k-NN, beside raw pixels and the same network untrained.

use augment::EvalTransform;
use eval::{KnnConfig, KnnOptions, KnnResult, KnnTable, KnnTask};
use serde_json::json;
use simdino::weights::data_config;
use trainer::files::write_json;

use crate::console::note;
use crate::failure::{Failure, Result};
use crate::sizes::words;

use super::subject::{Opened, Subject};

/// What `eval knn` takes.
#[derive(Debug, clap::Args)]
pub struct KnnArgs {
    #[command(flatten)]
    subject: Subject,
    /// Neighbors that vote; the first is the one reported
    #[arg(long, value_delimiter = ',', default_value = "20,10,100,200")]
    k: Vec<usize>,
    /// Temperature of the votes
    #[arg(long, default_value_t = 0.07)]
    temperature: f64,
}

/// Runs the verb.
pub fn run(args: &KnnArgs) -> Result<()> {
    if args.k.contains(&0) {
        return Err(Failure::usage("--k: every number must be at least 1 (got 0)"));
    }
    let subject = &args.subject;
    let Opened { weights, transform, device } = subject.open()?;
    let (train, test) = (subject.train.as_str(), subject.test.as_str());
    let mut options = KnnOptions::new(train, test, transform, weights.normalize.clone());
    [options.max_train, options.max_test] = subject.limits();
    options.knn =
        KnnConfig { k: args.k.clone(), temperature: args.temperature, ..KnnConfig::default() };
    (options.device, options.precision) = (device, subject.precision.into());
    let task = KnnTask::open(options, &data_config(&weights, ""))?;
    task.notices().iter().for_each(|text| note(text));
    let table = task.table(&weights.backbone, &weights.untrained()?)?;
    if subject.weights.join("config.resolved.yaml").is_file() {
        write_json(&subject.weights.join("results.json"), &table)?;
    }
    print(args, &table, weights.step)
}

fn print(args: &KnnArgs, table: &KnnTable, step: u64) -> Result<()> {
    if args.subject.json {
        let summary = json!({
            "top1": table.knn.top1(),
            "untrained": table.untrained.top1(),
            "pixels": table.pixels.top1(),
            "step": step,
            "resize": table.resize,
            "crop": table.crop,
            "precision": table.precision,
            "results": table,
        });
        println!("{}", serde_json::to_string(&summary)?);
        return Ok(());
    }
    println!(
        "{}: {} images vote, {} are classified, {} classes; {}, {}",
        args.subject.weights.display(),
        table.knn.num_train,
        table.knn.num_test,
        table.knn.classes,
        words(EvalTransform { resize: table.resize, crop: table.crop }),
        args.subject.precision
    );
    println!("{:>6}  {:>16}  {:>16}  {:>16}", "k", "this network", "untrained", "raw pixels");
    for (i, score) in table.knn.scores.iter().enumerate() {
        let cell = |result: &KnnResult| {
            result.scores.get(i).map_or_else(String::new, |s| {
                format!("{:.1} % (top5 {:.1})", 100.0 * s.top1, 100.0 * s.top5)
            })
        };
        println!(
            "{:>6}  {:>20}  {:>20}  {:>20}",
            score.k,
            cell(&table.knn),
            cell(&table.untrained),
            cell(&table.pixels)
        );
    }
    Ok(())
}
