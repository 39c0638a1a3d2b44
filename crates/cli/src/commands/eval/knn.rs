//! `simdino eval knn`: weighted k-NN, compared with raw pixels and with the same network untrained.

use std::collections::BTreeSet;
use std::fmt::Write;

use eval::baseline::{PixelOptions, pixel_features};
use eval::{FeatureSet, FewShotScore, KnnConfig, KnnResult, KnnTable, few_shot, knn, results};
use report::percent;
use serde_json::json;

use crate::console::note;
use crate::failure::Result;
use crate::sizes::words;

use super::few_shots::FewShots;
use super::numbers::{at_least_one, positive};
use super::outcome::{Measured, Outcome, measure_each};
use super::shared;
use super::subject::{LAST, Subject, Task};

/// Arguments of `simdino eval knn`.
#[derive(Debug, clap::Args)]
pub struct KnnArgs {
    #[command(flatten)]
    subject: Subject,
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

impl Default for KnnOptions {
    fn default() -> Self {
        Self { k: vec![20, 10, 100, 200], temperature: 0.07, few: FewShots::default() }
    }
}

/// Measures all networks.
pub fn run(args: &KnnArgs) -> Result<Outcome> {
    let KnnOptions { k, few, temperature } = &args.options;
    at_least_one("--k", k)?;
    positive("--temperature", &[*temperature])?;
    few.check()?;
    if !shared::extract(&args.subject, &BTreeSet::from([LAST]), true)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.subject.networks, &mut |opened| {
        measure(&args.options, &args.subject.task(opened, &BTreeSet::from([LAST]))?)
    })
}

/// Measures a network. If this [is about a run](is_about_a_run) that measured no k-NN table at the
/// end of its training, the table becomes that of the run.
pub fn measure(options: &KnnOptions, task: &Task<'_>) -> Result<Measured> {
    let mut config = KnnConfig { k: options.k.clone(), ..KnnConfig::default() };
    (config.temperature, config.device) = (options.temperature, task.opened.device);
    let of = |[train, test]: &[FeatureSet; 2]| knn(train, test, &config);
    let (trained, untrained) = (task.trained(&[LAST])?, task.untrained(&[LAST])?);
    let pixels = pixels(task)?;
    let seen = (task.extract.transform, task.extract.precision);
    let table = KnnTable::new(of(&trained)?, of(&untrained)?, of(&pixels)?, seen, false);
    if is_about_a_run(task)? {
        results::update(&task.opened.path, |results| match results.table_is_of_training() {
            true => Ok(()),
            false => results.set_table(&table),
        })?;
    }
    let counts = [table.knn.num_train, table.knn.num_test];
    let mut record = task.record("knn", counts, table.knn.classes)?;
    table.describe(&mut record);
    let mut few = Vec::new();
    if let Some(subsets) = options.few.config() {
        options.few.describe(&mut record);
        let of = |[train, test]: &[FeatureSet; 2]| few_shot(train, test, &config, &subsets);
        few = of(&trained)?;
        FewShotScore::describe(&few, None, &mut record);
        FewShotScore::describe(&of(&untrained)?, Some("untrained"), &mut record);
        FewShotScore::describe(&of(&pixels)?, Some("pixels"), &mut record);
    }
    let fewer = options.few.note(&trained[0]);
    table.knn.notes.iter().chain(&fewer).for_each(|text| note(text));
    let json = json!({
        "top1": table.knn.top1(),
        "untrained": table.untrained.top1(),
        "pixels": table.pixels.top1(),
        "step": task.opened.weights.step,
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
fn is_about_a_run(task: &Task<'_>) -> Result<bool> {
    let run = &task.opened.path;
    if !run.join("config.resolved.yaml").is_file()
        || task.subject.networks.folder_of_results(run).as_ref() != Some(run)
        || task.subject.limits() != [None, None]
    {
        return Ok(false);
    }
    // A run in progress has no final weights, or, while it is extended, only those of before.
    let newest = trainer::checkpoint::list(&run.join("checkpoints"))?.pop();
    let later = newest.is_some_and(|(step, _)| step > task.opened.weights.step);
    Ok(run.join("weights").is_dir() && !later)
}

fn pixels(task: &Task<'_>) -> Result<[FeatureSet; 2]> {
    let workers = simdino::weights::data_config(&task.opened.weights, "").workers;
    let limits = task.subject.limits();
    let options = PixelOptions { workers, limits, ..PixelOptions::default() };
    let (train, test) = pixel_features(&task.train, &task.test, &options)?;
    Ok([train, test])
}

fn text(task: &Task<'_>, table: &KnnTable) -> String {
    let mut text = format!(
        "{}: {} training images, {} test images, {} classes; {}, {}\n",
        task.opened.path.display(),
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
