//! `simdino eval logistic`: logistic regression, beside the same network untrained.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use data::Dataset;
use eval::logistic::{LogisticConfig, LogisticResult, logistic};
use eval::store::{FeatureStore, ImageFeature, Network, weights_fingerprint};
use eval::{ExtractOptions, FeatureSet, open_labeled};
use serde_json::json;
use simdino::weights::data_config;

use crate::console::{note, progress};
use crate::failure::{Failure, Result};
use crate::sizes::words;

use super::subject::{Opened, Subject};

/// What `eval logistic` takes.
#[derive(Debug, clap::Args)]
pub struct LogisticArgs {
    #[command(flatten)]
    subject: Subject,
    /// Candidates for C, of which a tenth of the train images chooses one; by default 45 from 1e-6
    /// to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
    /// Folder that keeps features for the next evaluation; by default the folder `features` of a run,
    /// and none for a weight file
    #[arg(long, value_name = "FOLDER")]
    features: Option<PathBuf>,
}

/// The class token of the last block.
const FEATURE: ImageFeature = ImageFeature::Cls(1);

/// Runs the verb.
pub fn run(args: &LogisticArgs) -> Result<()> {
    if args.c.iter().any(|&c| !c.is_finite() || c <= 0.0) {
        return Err(Failure::usage(format!(
            "--c: every number must be above 0 (got {:?})",
            args.c
        )));
    }
    let opened = args.subject.open()?;
    let data = data_config(&opened.weights, "");
    let (train, test) = (args.subject.train.as_str(), args.subject.test.as_str());
    let sets = [open_labeled(train, &data)?, open_labeled(test, &data)?];
    for (set, path) in sets.iter().zip([train, test]) {
        set.notices().sentences_about(path).iter().for_each(|text| note(text));
    }
    let mut config = LogisticConfig::default();
    config.device = opened.device;
    if !args.c.is_empty() {
        config.c.clone_from(&args.c);
    }
    let results = measure(args, &opened, &sets, &config)?;
    print(args, &opened, &results)
}

/// Names of the rows, and what they are of.
type Results = [(&'static str, LogisticResult); 2];

fn measure(
    args: &LogisticArgs,
    opened: &Opened,
    sets: &[Arc<Dataset>; 2],
    config: &LogisticConfig,
) -> Result<Results> {
    let fingerprint = weights_fingerprint(&opened.weights.tensors())?;
    let trained = Network { backbone: &opened.weights.backbone, fingerprint: &fingerprint };
    let backbone = opened.weights.untrained()?;
    // Its values come from the seed in the file and from the generator of the device.
    let fingerprint = format!("untrained-{:?}-{fingerprint}", opened.device);
    let untrained = Network { backbone: &backbone, fingerprint: &fingerprint };
    let of = |network| -> Result<LogisticResult> {
        let [train, test] = features(args, opened, network, sets)?;
        Ok(logistic(&train, &test, config)?)
    };
    Ok([("this network", of(trained)?), ("untrained", of(untrained)?)])
}

fn features(
    args: &LogisticArgs,
    opened: &Opened,
    network: Network<'_>,
    sets: &[Arc<Dataset>; 2],
) -> Result<[FeatureSet; 2]> {
    let run = &args.subject.weights;
    let of_run = run.join("config.resolved.yaml").is_file().then(|| run.join("features"));
    let store = match args.features.clone().or(of_run) {
        Some(folder) => FeatureStore::in_folder(folder),
        None => FeatureStore::default(),
    };
    let wanted = BTreeSet::from([FEATURE]);
    let of = |set: &Arc<Dataset>, limit| -> Result<FeatureSet> {
        let normalize = opened.weights.normalize.clone();
        let mut options = ExtractOptions::new(opened.transform, normalize);
        (options.device, options.limit) = (opened.device, limit);
        options.batch = ExtractOptions::batch_for(opened.device);
        options.precision = args.subject.precision.into();
        let bar = progress(set.len(), "images embedded");
        let features = store.features(network, set, &options, &wanted, &mut |done, total| {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        for image in &features.broken {
            note(&format!("warning: skipped {}: {}", image.name, image.reason));
        }
        Ok(features.side_by_side(&[FEATURE])?)
    };
    let [max_train, max_test] = args.subject.limits();
    Ok([of(&sets[0], max_train)?, of(&sets[1], max_test)?])
}

fn print(args: &LogisticArgs, opened: &Opened, results: &Results) -> Result<()> {
    let [(_, trained), (_, untrained)] = results;
    for (name, result) in results {
        result.notes.iter().for_each(|text| note(&format!("{name}: {text}")));
    }
    let precision = args.subject.precision.to_string();
    if args.subject.json {
        let summary = json!({
            "protocol": "logistic",
            "top1": trained.top1,
            "untrained": untrained.top1,
            "step": opened.weights.step,
            "resize": opened.transform.resize,
            "crop": opened.transform.crop,
            "precision": precision,
            "results": { "trained": trained, "untrained": untrained },
        });
        println!("{}", serde_json::to_string(&summary)?);
        return Ok(());
    }
    println!(
        "{}: logistic regression on {} images, {} are classified, {} classes; {}, {precision}",
        args.subject.weights.display(),
        trained.num_train,
        trained.num_test,
        trained.classes,
        words(opened.transform),
    );
    println!(
        "{:>14}  {:>8}  {:>8}  {:>14}  {:>8}  {:>14}",
        "", "top-1", "top-5", "mean of classes", "C", "effective rank"
    );
    for (name, result) in results {
        let percent = |value: f64| format!("{:.1} %", 100.0 * value);
        println!(
            "{name:>14}  {:>8}  {:>8}  {:>15}  {:>8.1e}  {:>14.1}",
            percent(result.top1),
            percent(result.top5),
            percent(result.mean_class_accuracy),
            result.c,
            result.effective_rank,
        );
    }
    Ok(())
}
