//! `simdino eval knn`: weighted k-NN, beside raw pixels and the same network untrained.

use std::fmt::Write;

use eval::baseline::{PixelOptions, pixel_features};
use eval::results;
use eval::{FeatureSet, KnnConfig, KnnResult, KnnTable, knn};
use serde_json::json;

use crate::console::note;
use crate::failure::{Failure, Result};
use crate::sizes::words;

use super::networks::Opened;
use super::outcome::{Measured, measure_each};
use super::subject::{Sets, Subject};

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
    measure_each(&args.subject.networks, &mut |opened| measure(args, opened))
}

fn measure(args: &KnnArgs, opened: &Opened) -> Result<Measured> {
    let subject = &args.subject;
    let sets = subject.sets(opened)?;
    let mut config = KnnConfig { k: args.k.clone(), ..KnnConfig::default() };
    (config.temperature, config.device) = (args.temperature, opened.device);
    let trained = subject.class_tokens(opened, opened.network(), &sets)?;
    let of = |[train, test]: &[FeatureSet; 2]| knn(train, test, &config);
    let untrained = opened.untrained()?;
    let untrained = of(&subject.class_tokens(opened, untrained.network(), &sets)?)?;
    let table =
        KnnTable::new(of(&trained)?, untrained, pixels(subject, opened, &sets, &config)?, {
            (opened.transform, subject.networks.precision.into())
        });
    if opened.path.join("config.resolved.yaml").is_file() {
        results::update(&opened.path, |results| results.set_table(&table))?;
    }
    let mut record = opened.record("knn");
    table.describe(&mut record);
    record.spread(&trained[0])?;
    let counts = [table.knn.num_train, table.knn.num_test];
    subject.describe(&mut record, &sets, counts, table.knn.classes);
    table.knn.notes.iter().for_each(|text| note(text));
    let json = json!({
        "top1": table.knn.top1(),
        "untrained": table.untrained.top1(),
        "pixels": table.pixels.top1(),
        "step": opened.weights.step,
        "resize": table.resize,
        "crop": table.crop,
        "precision": table.precision,
        "results": table,
    });
    Ok(Measured { records: vec![record], json, text: text(opened, &table, args) })
}

fn pixels(
    subject: &Subject,
    opened: &Opened,
    sets: &Sets,
    config: &KnnConfig,
) -> Result<KnnResult> {
    let workers = simdino::weights::data_config(&opened.weights, "").workers;
    let options = PixelOptions { workers, limits: subject.limits(), ..PixelOptions::default() };
    let (train, test) = pixel_features(&sets.train, &sets.test, &options)?;
    Ok(knn(&train, &test, config)?)
}

fn text(opened: &Opened, table: &KnnTable, args: &KnnArgs) -> String {
    let mut text = format!(
        "{}: {} images vote, {} are classified, {} classes; {}, {}\n",
        opened.path.display(),
        table.knn.num_train,
        table.knn.num_test,
        table.knn.classes,
        words(opened.transform),
        args.subject.networks.precision
    );
    let _ = writeln!(
        text,
        "{:>6}  {:>20}  {:>20}  {:>20}",
        "k", "this network", "untrained", "raw pixels"
    );
    for (i, score) in table.knn.scores.iter().enumerate() {
        let cell = |result: &KnnResult| {
            result.scores.get(i).map_or_else(String::new, |s| {
                format!("{:.1} % (top5 {:.1})", 100.0 * s.top1, 100.0 * s.top5)
            })
        };
        let cells = [&table.knn, &table.untrained, &table.pixels].map(cell);
        let _ =
            writeln!(text, "{:>6}  {:>20}  {:>20}  {:>20}", score.k, cells[0], cells[1], cells[2]);
    }
    text
}
