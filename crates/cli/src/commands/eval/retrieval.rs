//! `simdino eval retrieval`: ranks images of the same place.

use std::collections::BTreeMap;
use std::path::PathBuf;

use eval::record::{DataUsed, Metrics};
use eval::retrieval::{
    Difficulty, EmbedOptions, GroundTruth, ImageFeatureKind, ImageFile, Revisited, fingerprint,
    images_in,
};

use crate::failure::{Failure, Result};

use super::embedded::{Scores, baselines, embedded, notes, options, put, spread};
use super::networks::{Networks, Opened};
use super::outcome::{Measured, Outcome, measure_each};

/// Arguments of `simdino eval retrieval`.
#[derive(Debug, clap::Args)]
pub struct RetrievalArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of the database images and of the query images
    #[arg(long, value_name = "FOLDER")]
    images: PathBuf,
    /// gnd_roxford5k.pkl, gnd_rparis6k.pkl, or a JSON file of the same form
    #[arg(long, value_name = "FILE")]
    ground_truth: PathBuf,
    /// Maximum length of the longer side, in pixels; DINO uses 224 for Oxford and 512 for Paris
    #[arg(long, default_value_t = 224)]
    max_side: u32,
    /// Average the features of three image sizes
    #[arg(long)]
    multi_scale: bool,
    /// Use only the part of a query image that shows the place
    #[arg(long)]
    crop_queries: bool,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    pub skip_untrained: bool,
}

impl RetrievalArgs {
    /// Returns the arguments for the published settings of Oxford.
    pub fn of(networks: Networks, images: PathBuf, ground_truth: PathBuf) -> Self {
        let (multi_scale, crop_queries, skip_untrained) = (false, false, false);
        let max_side = 224;
        Self { networks, images, ground_truth, max_side, multi_scale, crop_queries, skip_untrained }
    }
}

/// Measures all networks.
pub fn run(args: &RetrievalArgs) -> Result<Outcome> {
    let truth = GroundTruth::read(&args.ground_truth)?;
    let files = Places::find(args, &truth)?;
    measure_each(&args.networks, &mut |opened| measure_places(args, (&truth, &files), opened))
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the ground truth or the images cannot be read.
pub fn measure(args: &RetrievalArgs, opened: &Opened) -> Result<Measured> {
    let truth = GroundTruth::read(&args.ground_truth)?;
    measure_places(args, (&truth, &Places::find(args, &truth)?), opened)
}

fn measure_places(
    args: &RetrievalArgs,
    (truth, files): (&GroundTruth, &Places),
    opened: &Opened,
) -> Result<Measured> {
    let least = opened.weights.model.patch_size * if args.multi_scale { 2 } else { 1 };
    if i64::from(args.max_side) < least {
        return Err(Failure::usage(format!(
            "--max-side {}: must be at least {least} pixels for this network",
            args.max_side
        )));
    }
    let kind = ImageFeatureKind::Cls { most: args.max_side, multi_scale: args.multi_scale };
    let of = |options: &EmbedOptions<'_>| files.scores(truth, options);
    let scores = of(&options(opened, &opened.weights.backbone, kind))?;
    let baselines = baselines(opened, kind, args.skip_untrained, &of)?;
    let mut record = opened.record("retrieval");
    record.set("max_side", args.max_side);
    record.set("multi_scale", args.multi_scale);
    record.set("crop_queries", args.crop_queries);
    let all = [&files.database, &files.queries].map(|files| paths(files));
    for (role, files) in ["database", "query"].into_iter().zip(&all) {
        let used = DataUsed::of_files(role, &args.images, fingerprint(files), files.len());
        record.data.push(used);
    }
    let truth_file = std::slice::from_ref(&args.ground_truth);
    record.data.push(DataUsed::truth(&args.ground_truth, truth_file)?);
    put(&mut record, "map medium", &scores, &baselines);
    Measured::of(record)
}

/// The image files that a ground truth names.
struct Places {
    database: Vec<ImageFile>,
    queries: Vec<ImageFile>,
}

impl Places {
    fn find(args: &RetrievalArgs, truth: &GroundTruth) -> Result<Self> {
        let mut by_name: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in images_in(&args.images)? {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            by_name.entry(name).or_default().push(path);
        }
        let file = |name: &String, part| match by_name.get(name).map_or(&[][..], Vec::as_slice) {
            [path] => Ok(ImageFile { path: path.clone(), part }),
            [] => {
                let (folder, truth) = (args.images.display(), args.ground_truth.display());
                Err(Failure::failed(format!(
                    "{folder}: no image named {name}, although {truth} lists it"
                )))
            }
            [first, second, ..] => Err(Failure::failed(format!(
                "{} and {}: both could be the image {name} that {} lists; keep only one of them in \
                 the folder",
                first.display(),
                second.display(),
                args.ground_truth.display()
            ))),
        };
        let database = truth.images.iter().map(|name| file(name, None)).collect::<Result<_>>()?;
        let part = |bbox: Option<[f64; 4]>| bbox.filter(|_| args.crop_queries);
        let queries = truth.queries.iter().map(|query| file(&query.name, part(query.bbox)));
        Ok(Self { database, queries: queries.collect::<Result<_>>()? })
    }

    fn scores(&self, truth: &GroundTruth, options: &EmbedOptions<'_>) -> Result<Scores> {
        let mut broken = Vec::new();
        let (database, missing) = embedded(&self.database, options, &mut broken)?;
        let (queries, missing_queries) = embedded(&self.queries, options, &mut broken)?;
        let ranked = Revisited::new(&queries.features, &database.features)?;
        let (mut scores, spread) = (Metrics::new(), spread(&database.features, options)?);
        for (name, difficulty) in Difficulty::ALL {
            let score = match ranked.score(truth, difficulty, &missing, &missing_queries) {
                Ok(score) => score,
                Err(eval::Error::NoPositives) => continue,
                Err(error) => return Err(error.into()),
            };
            scores.insert(format!("map {name}"), score.map);
            for (k, precision) in [1, 5, 10].into_iter().zip(score.precision_at) {
                scores.insert(format!("mp@{k} {name}"), precision);
            }
        }
        if scores.is_empty() {
            return Err(eval::Error::NoPositives.into());
        }
        Ok(Scores { metrics: scores, spread, notes: notes(&broken) })
    }
}

fn paths(files: &[ImageFile]) -> Vec<PathBuf> {
    files.iter().map(|file| file.path.clone()).collect()
}
