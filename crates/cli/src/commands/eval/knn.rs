//! `simdino eval knn`: weighted k-NN, compared with raw pixels and with the same network untrained.

use std::fmt::Write;

use eval::{FewShotScore, KnnResult, KnnTable, results};
use protocols::labeled::{Knn, KnnMeasured, LabeledProtocol, LabeledTask};
use report::percent;
use serde_json::json;

use crate::failure::Result;
use crate::sizes::words;

use super::few_shots::FewShots;
use super::labeled::LabeledArgs;
use super::networks::Networks;
use super::numbers::{at_least_one, positive};
use super::outcome::{Measured, Outcome, measure_each};
use super::shared;
use super::terminal::Terminal;

/// Arguments of `simdino eval knn`.
#[derive(Debug, clap::Args)]
pub struct KnnArgs {
    #[command(flatten)]
    labeled: LabeledArgs,
    #[command(flatten)]
    options: KnnOptions,
}

/// Options of the protocol.
#[derive(Debug, clap::Args)]
pub struct KnnOptions {
    /// Neighbors that vote; the first is the one reported
    #[arg(long, value_delimiter = ',', default_value = "20,10,100,200")]
    k: Vec<usize>,
    /// Temperature of the votes
    #[arg(long, default_value_t = 0.07)]
    temperature: f64,
    #[command(flatten)]
    few: FewShots,
}

impl KnnOptions {
    fn protocol(&self) -> Knn {
        let mut knn = Knn::default();
        (knn.config.k, knn.config.temperature) = (self.k.clone(), self.temperature);
        knn.few = self.few.config();
        knn
    }
}

/// Measures all networks.
pub fn run(args: &KnnArgs) -> Result<Outcome> {
    let KnnOptions { k, few, temperature } = &args.options;
    at_least_one("--k", k)?;
    positive("--temperature", &[*temperature])?;
    few.check()?;
    let (knn, terminal) = (args.options.protocol(), Terminal::default());
    if !shared::extract(&args.labeled, &knn.features(), true)? {
        return Ok(Outcome::of_another_process());
    }
    let networks = &args.labeled.networks;
    measure_each(networks, &mut |subject| {
        let images = args.labeled.images(subject)?;
        let task = LabeledTask::open(&images, subject, &knn.features(), &terminal)?;
        measure(&knn, networks, &task)
    })
}

/// Measures a network. If this [is about a run](is_about_a_run) that measured no k-NN table at the
/// end of its training, the table becomes that of the run.
pub fn measure(knn: &Knn, networks: &Networks, task: &LabeledTask<'_>) -> Result<Measured> {
    let KnnMeasured { table, few, record, .. } = knn.measure(task)?;
    if is_about_a_run(networks, task)? {
        results::update(&task.subject.path, |results| match results.table_is_of_training() {
            true => Ok(()),
            false => results.set_table(&table),
        })?;
    }
    let json = json!({
        "top1": table.knn.top1(),
        "untrained": table.untrained.top1(),
        "pixels": table.pixels.top1(),
        "step": task.subject.weights.step,
        "resize": table.resize,
        "crop": table.crop,
        "precision": table.precision,
        "results": table,
        "few_shot": few,
        "record": record,
    });
    let text = text(task, &table) + &few_shot_text(&few);
    Ok(Measured { records: vec![record], json, text, incomplete: false })
}

/// Returns whether a measurement is about the final network of a run, with all images, and its
/// results are saved in the folder of the run.
fn is_about_a_run(networks: &Networks, task: &LabeledTask<'_>) -> Result<bool> {
    let run = &task.subject.path;
    if !run.join("config.resolved.yaml").is_file()
        || networks.folder_of_results(run).as_ref() != Some(run)
        || (task.images.max_train, task.images.max_test) != (None, None)
    {
        return Ok(false);
    }
    // A run in progress has no final weights, or, while it is extended, only those of before.
    let newest = trainer::checkpoint::list(&run.join("checkpoints"))?.pop();
    let later = newest.is_some_and(|(step, _)| step > task.subject.weights.step);
    Ok(run.join("weights").is_dir() && !later)
}

fn text(task: &LabeledTask<'_>, table: &KnnTable) -> String {
    let mut text = format!(
        "{}: {} training images, {} test images, {} classes; {}, {}\n",
        task.subject.path.display(),
        table.knn.num_train,
        table.knn.num_test,
        table.knn.classes,
        words(task.extract.transform),
        task.extract.precision
    );
    let mut line = |cells: [String; 4]| {
        let [k, here, untrained, pixels] = cells;
        let _ = writeln!(text, "{k:>6}  {here:>20}  {untrained:>20}  {pixels:>20}");
    };
    line(["k", "this network", "untrained", "raw pixels"].map(str::to_owned));
    for (i, score) in table.knn.scores.iter().enumerate() {
        let cell = |result: &KnnResult| {
            result.scores.get(i).map_or_else(String::new, |s| {
                format!("{:.1}% (top-5 {:.1})", 100.0 * s.top1, 100.0 * s.top5)
            })
        };
        let k = score.k.to_string();
        line([k, cell(&table.knn), cell(&table.untrained), cell(&table.pixels)]);
    }
    text
}

fn few_shot_text(scores: &[FewShotScore]) -> String {
    let line = |score: &FewShotScore| {
        format!(
            "{}-shot, k = {}: {} +/- {}\n",
            score.per_class,
            score.k,
            percent(score.top1, 1),
            percent(score.top1_std, 1)
        )
    };
    scores.iter().map(line).collect()
}
