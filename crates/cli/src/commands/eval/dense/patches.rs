//! `simdino eval segment-knn`: segmentation by k-NN and logistic regression on patches.

use std::num::NonZeroUsize;

use clap::ValueEnum;
use eval::segmentation::knn::{KnnSettings, PatchConfig, PatchSegmenter, TrainPatches};
use eval::segmentation::{DenseData, DenseNetwork, Layers, MaskSize, Metered};
use serde_json::{Map, Value, json};

use crate::commands::eval::networks::Opened;
use crate::commands::eval::numbers::{at_least_one, positive};
use crate::commands::eval::outcome::{Measured, Outcome, measure_each, text_of};
use crate::commands::eval::sheet::Sheet;
use crate::console::progress;
use crate::failure::Result;

use super::kept::KeptMaps;
use super::scored::{About, Scored, record, score};
use super::shared;
use super::subject::DenseSubject;

/// Arguments of `simdino eval segment-knn`.
#[derive(Debug, clap::Args)]
pub struct PatchArgs {
    #[command(flatten)]
    subject: DenseSubject,
    #[command(flatten)]
    maps: KeptMaps,
    /// Classifiers of patches
    #[arg(long, value_enum, value_delimiter = ',', default_value = "knn,logistic")]
    classifier: Vec<Kind>,
    /// Candidates for the number of neighbors
    #[arg(long, value_delimiter = ',', default_value = "1,3,10,30")]
    k: Vec<usize>,
    /// Candidates for C of the regression; by default 8 from 1e-6 to 1e5
    #[arg(long, value_delimiter = ',')]
    c: Vec<f64>,
    /// Maximum number of iterations of the regression for each C
    #[arg(long, default_value_t = 1000)]
    max_iterations: usize,
    /// Maximum number of patches of the training images that are kept
    #[arg(long, default_value = "1048576")]
    memory: NonZeroUsize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Pixels of the nearest patches vote
    Knn,
    /// Logistic regression on the most frequent class of a patch
    Logistic,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Knn => "k-NN",
            Self::Logistic => "logistic regression",
        }
    }
}

impl PatchArgs {
    /// Returns the arguments for the published settings of k-NN and, if wanted, of logistic
    /// regression, which takes several times as long.
    pub fn of(subject: DenseSubject, maps: KeptMaps, logistic: bool) -> Self {
        let PatchConfig { k, max_iterations, memory, .. } = PatchConfig::default();
        let memory = NonZeroUsize::new(memory).unwrap_or(NonZeroUsize::MIN);
        let mut classifier = vec![Kind::Knn];
        classifier.extend(logistic.then_some(Kind::Logistic));
        Self { subject, maps, classifier, k, c: Vec::new(), max_iterations, memory }
    }
}

/// Measures all networks.
pub fn run(args: &PatchArgs) -> Result<Outcome> {
    at_least_one("--k", &args.k)?;
    positive("--c", &args.c)?;
    let mut sheet = Sheet::new(args.subject.picture.as_deref())?;
    if !shared::extract(&args.subject, &args.maps, PatchConfig::default().side)? {
        return Ok(Outcome::of_another_process());
    }
    measure_each(&args.subject.networks, &mut |opened| measure(args, opened, &mut sheet))
}

/// Measures a network and adds its pictures to the sheet.
pub fn measure(args: &PatchArgs, opened: &Opened, sheet: &mut Sheet) -> Result<Measured> {
    let subject = &args.subject;
    let sets = subject.sets(opened)?;
    let last = Layers::Last(1);
    let kept = args.maps.extractor(opened, opened.network())?;
    let meter = opened.metered(&kept);
    let own = subject.network(opened, &meter, last);
    let config = config(args, own);
    let [train, test] = subject.data(&sets);
    let trained = measured(own, &train, &test, &config, (args, Some(&meter)))?;
    kept.finish();
    let backbone = (!subject.skip_untrained).then(|| opened.untrained()).transpose()?;
    let untrained = backbone.as_ref().map(|untrained| {
        let kept = args.maps.extractor(opened, untrained.network())?;
        let network = subject.network(opened, &kept, last);
        measured(network, &train, &test, &config, (args, None))
    });
    let untrained = untrained.transpose()?.unwrap_or_default();
    let about = About { subject, opened, sets: &sets };
    for (name, scored) in [("", &trained), (", untrained", &untrained)] {
        for (kind, scored) in args.classifier.iter().zip(scored) {
            about.draw(sheet, &format!("{name}, {}", kind.name()), scored);
        }
    }
    both(args, &about, &config, &trained, &untrained)
}

fn config(args: &PatchArgs, network: DenseNetwork<'_>) -> PatchConfig {
    let mut config = PatchConfig::default();
    config.side = network.whole_patches(args.subject.crop().unwrap_or(config.side));
    config.mask = args.subject.mask(MaskSize::Square(config.side));
    (config.k, config.memory, config.seed) = (args.k.clone(), args.memory.get(), args.subject.seed);
    config.max_iterations = args.max_iterations;
    if !args.c.is_empty() {
        config.c.clone_from(&args.c);
    }
    config
}

/// Scores each classifier, in the order in which they were requested.
fn measured(
    network: DenseNetwork<'_>,
    train: &DenseData<'_>,
    test: &DenseData<'_>,
    config: &PatchConfig,
    (args, meter): (&PatchArgs, Option<&Metered<'_>>),
) -> Result<Vec<Scored>> {
    let bar = progress(train.set.len(), "images embedded");
    let patches = TrainPatches::new(network, train, config, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    let scored = |kind: &Kind| -> Result<Scored> {
        let (segmenter, mut chosen) = fitted(&patches, *kind)?;
        chosen.push(("patches_in_memory", patches.len().into()));
        let picture = args.subject.picture.is_some();
        let scored = score(&segmenter, test, config.mask, picture, meter)?;
        Ok(Scored { chosen, ..scored.trained_on(patches.images, &patches.broken) })
    };
    args.classifier.iter().map(scored).collect()
}

/// Fits a classifier, and returns it with the chosen settings and the scores of all candidates.
fn fitted<'a>(
    patches: &'a TrainPatches<'a>,
    kind: Kind,
) -> Result<(PatchSegmenter<'a>, Vec<(&'static str, Value)>)> {
    let (segmenter, name, candidates): (_, _, Map<String, Value>) = match kind {
        Kind::Knn => {
            let (segmenter, candidates) = patches.knn()?;
            let named = candidates.iter().map(|one| {
                let KnnSettings { k, similarity } = one.settings;
                (
                    format!("k {k} {}", json!(similarity).as_str().unwrap_or_default()),
                    json!(one.miou),
                )
            });
            (segmenter, "knn", named.collect())
        }
        Kind::Logistic => {
            let (segmenter, candidates) = patches.logistic()?;
            let named =
                candidates.iter().map(|one| (format!("{:.1e}", one.settings), json!(one.miou)));
            (segmenter, "c", named.collect())
        }
    };
    let chosen = vec![
        (name, segmenter.settings().in_record()),
        ("miou_of_candidates", Value::Object(candidates)),
    ];
    Ok((segmenter, chosen))
}

/// Creates a record for each classifier.
fn both(
    args: &PatchArgs,
    about: &About<'_>,
    config: &PatchConfig,
    trained: &[Scored],
    untrained: &[Scored],
) -> Result<Measured> {
    let mut records = Vec::new();
    for (i, (kind, trained)) in args.classifier.iter().zip(trained).enumerate() {
        let protocol = match kind {
            Kind::Knn => "segment-knn",
            Kind::Logistic => "segment-logistic",
        };
        let mut record = record(protocol, about, config, trained, untrained.get(i))?;
        (record.crop, record.mask_size) = (Some(config.side), config.mask.side());
        record.check()?;
        records.push(record);
    }
    let text = records.iter().map(text_of).collect::<Vec<_>>().join("\n");
    let json = serde_json::to_value(&records)?;
    Ok(Measured { json, text, records, incomplete: false })
}
