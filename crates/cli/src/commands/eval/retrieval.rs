//! `simdino eval retrieval` and `simdino eval copy`: rank images of the same place, or the original
//! of a copy.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use data::loader::BrokenImage;
use eval::record::{DataUsed, Metrics, Record};
use eval::retrieval::copydays::{Copydays, Whitening, group_of, score_block};
use eval::retrieval::{
    Difficulty, EmbedOptions, Embedded, GroundTruth, ImageFeatureKind, ImageFile, Revisited, embed,
    fingerprint, images_in,
};
use eval::spectrum::Spread;
use model::VisionTransformer;
use simdino::weights::data_config;

use crate::console::{name_skipped, progress};
use crate::failure::{Failure, Result};

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
    skip_untrained: bool,
}

/// Arguments of `simdino eval copy`.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    #[command(flatten)]
    networks: Networks,
    /// Folder of Copydays, with the folders original, strong, jpegqual/N and crops/N
    #[arg(long, value_name = "FOLDER")]
    copydays: PathBuf,
    /// Additional images of the database, which are not originals
    #[arg(long, value_name = "FOLDER")]
    distractors: Option<PathBuf>,
    /// Images from which the whitening of features is learned
    #[arg(long, value_name = "FOLDER")]
    whiten: Option<PathBuf>,
    /// Side of the square to which images are resized, in pixels, rounded down to whole patches
    #[arg(long, default_value_t = 320)]
    side: u32,
    /// Do not measure the same network untrained, which every number should be compared with
    #[arg(long)]
    skip_untrained: bool,
}

impl RetrievalArgs {
    /// Returns the arguments for the published settings of Oxford.
    pub fn of(networks: Networks, images: PathBuf, ground_truth: PathBuf) -> Self {
        let (multi_scale, crop_queries, skip_untrained) = (false, false, false);
        let max_side = 224;
        Self { networks, images, ground_truth, max_side, multi_scale, crop_queries, skip_untrained }
    }
}

impl CopyArgs {
    /// Returns the arguments for the published settings, without distractors and whitening.
    pub fn of(networks: Networks, copydays: PathBuf) -> Self {
        let (distractors, whiten, side, skip_untrained) = (None, None, 320, false);
        Self { networks, copydays, distractors, whiten, side, skip_untrained }
    }
}

/// Measures all networks.
pub fn run_retrieval(args: &RetrievalArgs) -> Result<Outcome> {
    let truth = GroundTruth::read(&args.ground_truth)?;
    let files = Places::find(args, &truth)?;
    measure_each(&args.networks, &mut |opened| measure_places(args, (&truth, &files), opened))
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the ground truth or the images cannot be read.
pub fn measure_retrieval(args: &RetrievalArgs, opened: &Opened) -> Result<Measured> {
    let truth = GroundTruth::read(&args.ground_truth)?;
    measure_places(args, (&truth, &Places::find(args, &truth)?), opened)
}

fn measure_places(
    args: &RetrievalArgs,
    (truth, files): (&GroundTruth, &Places),
    opened: &Opened,
) -> Result<Measured> {
    let kind = ImageFeatureKind::Cls { most: args.max_side, multi_scale: args.multi_scale };
    let of = |backbone: &VisionTransformer| files.scores(truth, &options(opened, backbone, kind));
    let scores = of(&opened.weights.backbone)?;
    let untrained = untrained(opened, args.skip_untrained, &of)?;
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
    put(&mut record, "map medium", &scores, untrained.as_ref());
    Measured::of(record)
}

/// Measures all networks.
pub fn run_copy(args: &CopyArgs) -> Result<Outcome> {
    let images = CopyImages::find(args)?;
    measure_each(&args.networks, &mut |opened| measure_copies(args, &images, opened))
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the images cannot be listed or read.
pub fn measure_copy(args: &CopyArgs, opened: &Opened) -> Result<Measured> {
    measure_copies(args, &CopyImages::find(args)?, opened)
}

/// The image files of copy detection.
struct CopyImages {
    copydays: Copydays,
    distractors: Vec<PathBuf>,
    whiten: Vec<PathBuf>,
}

impl CopyImages {
    fn find(args: &CopyArgs) -> Result<Self> {
        let listed = |folder: &Option<PathBuf>| -> Result<Vec<PathBuf>> {
            Ok(folder.as_deref().map(images_in).transpose()?.unwrap_or_default())
        };
        let (distractors, whiten) = (listed(&args.distractors)?, listed(&args.whiten)?);
        Ok(Self { copydays: Copydays::open(&args.copydays)?, distractors, whiten })
    }
}

fn measure_copies(args: &CopyArgs, images: &CopyImages, opened: &Opened) -> Result<Measured> {
    let CopyImages { copydays, distractors, whiten } = images;
    let patch = u32::try_from(opened.weights.model.patch_size).unwrap_or(1).max(1);
    let side = (args.side / patch).max(1) * patch;
    let kind = ImageFeatureKind::ClsGem { side };
    let of = |backbone: &VisionTransformer| {
        copies(copydays, [distractors, whiten], &options(opened, backbone, kind))
    };
    let scores = of(&opened.weights.backbone)?;
    let untrained = untrained(opened, args.skip_untrained, &of)?;
    let mut record = opened.record("copy");
    record.crop = Some(side);
    record.set("whitened", args.whiten.is_some());
    let queries = copydays.blocks.iter().map(|block| block.files.len()).sum();
    for (role, folder, files, count) in [
        ("original", Some(&args.copydays), &copydays.originals, copydays.originals.len()),
        ("query", Some(&args.copydays), &all_files(copydays), queries),
        ("distractor", args.distractors.as_ref(), distractors, distractors.len()),
        ("whitening", args.whiten.as_ref(), whiten, whiten.len()),
    ] {
        let Some(folder) = folder else { continue };
        record.data.push(DataUsed::of_files(role, folder, fingerprint(files), count));
    }
    let names = || scores.metrics.keys();
    let main = names().find(|name| *name == "map strong").or(names().next());
    let main = main.cloned().unwrap_or_default();
    put(&mut record, &main, &scores, untrained.as_ref());
    Measured::of(record)
}

/// The scores of a network.
struct Scores {
    metrics: Metrics,
    /// Of the features of the database.
    spread: Spread,
    /// Sentences about images that were skipped.
    notes: Vec<String>,
}

/// Scores the same network untrained, unless `skip` is set.
fn untrained(
    opened: &Opened,
    skip: bool,
    of: &dyn Fn(&VisionTransformer) -> Result<Scores>,
) -> Result<Option<Metrics>> {
    if skip {
        return Ok(None);
    }
    let untrained = opened.untrained()?;
    Ok(Some(of(untrained.network().backbone)?.metrics))
}

/// Adds scores to a record. The main one comes first, because a record takes its first score as
/// main.
fn put(record: &mut Record, main: &str, scores: &Scores, untrained: Option<&Metrics>) {
    if let Some(value) = scores.metrics.get(main) {
        record.score(main, *value);
    }
    scores.metrics.iter().for_each(|(name, value)| record.score(name, *value));
    record.spread(scores.spread);
    scores.notes.iter().for_each(|text| record.note(text));
    for (name, value) in untrained.into_iter().flatten() {
        record.baseline("untrained", name, *value);
    }
}

fn options<'a>(
    opened: &'a Opened,
    backbone: &'a VisionTransformer,
    kind: ImageFeatureKind,
) -> EmbedOptions<'a> {
    EmbedOptions {
        frozen: opened.frozen(backbone),
        pixels: data_config(&opened.weights, "").pixels(),
        kind,
    }
}

fn embedded(
    files: &[ImageFile],
    options: &EmbedOptions<'_>,
    broken: &mut Vec<BrokenImage>,
) -> Result<(Embedded, HashSet<usize>)> {
    let bar = progress(files.len(), "images embedded");
    let embedded = embed(files, options, &mut |done, _| bar.set_position(done as u64))?;
    bar.finish_and_clear();
    broken.extend(embedded.broken.iter().cloned());
    let missing = embedded.broken.iter().map(|image| image.index).collect();
    Ok((embedded, missing))
}

/// Prints which images were skipped, and returns a sentence about them if there are any.
fn notes(broken: &[BrokenImage]) -> Vec<String> {
    name_skipped("", broken); // names are full paths, so they are unique
    let first = broken.first().map(|image| {
        let (count, name, reason) = (broken.len(), &image.name, &image.reason);
        format!(
            "{count} of the images could not be used and will not count; the first is {name}: \
             {reason}"
        )
    });
    first.into_iter().collect()
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
        let (mut scores, spread) = (Metrics::new(), Spread::of(&database.features)?);
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

fn all_files(copydays: &Copydays) -> Vec<PathBuf> {
    copydays.blocks.iter().flat_map(|block| block.files.clone()).collect()
}

/// Computes the mean average precision of each block of Copydays, and the mean over the blocks of
/// each kind.
fn copies(
    copydays: &Copydays,
    [distractors, whiten]: [&Vec<PathBuf>; 2],
    options: &EmbedOptions<'_>,
) -> Result<Scores> {
    let mut broken = Vec::new();
    let whole = |path: &PathBuf| ImageFile { path: path.clone(), part: None };
    let mut of = |files: &[PathBuf]| {
        let files: Vec<ImageFile> = files.iter().map(whole).collect();
        embedded(&files, options, &mut broken)
    };
    let whitening = match whiten.is_empty() {
        true => None,
        false => {
            let (learned, missing) = of(whiten)?;
            Some(Whitening::learn(&without(&learned.features, &missing))?)
        }
    };
    let white = |features: tch::Tensor| match &whitening {
        Some(whitening) => whitening.apply(&features),
        None => Ok(features),
    };
    let (database, missing) = of(&[copydays.originals.as_slice(), distractors].concat())?;
    let database = without(&database.features, &missing);
    let (spread, database) = (Spread::of(&database)?, white(database)?);
    let groups = copydays.originals.iter().map(|path| group_of(path));
    let groups = groups.chain(std::iter::repeat_n(None, distractors.len())).enumerate();
    let groups = groups.filter(|(index, _)| !missing.contains(index)).map(|(_, group)| group);
    let groups: Vec<Option<String>> = groups.collect();
    let (mut scores, mut kinds) = (Metrics::new(), BTreeMap::<String, Vec<f64>>::new());
    for block in &copydays.blocks {
        let (queries, missing) = of(&block.files)?;
        // A missing query does not count.
        let group = |(index, path): (usize, &PathBuf)| match missing.contains(&index) {
            true => None,
            false => group_of(path),
        };
        let query_groups: Vec<Option<String>> = block.files.iter().enumerate().map(group).collect();
        let queries = white(queries.features)?;
        let score = score_block(&block.name, [&queries, &database], &query_groups, &groups)?;
        let kind = block.name.split('/').next().unwrap_or_default().to_owned();
        kinds.entry(kind).or_default().push(score.map);
        scores.insert(format!("map {}", block.name), score.map);
    }
    for (kind, maps) in kinds {
        scores.insert(format!("map {kind}"), maps.iter().sum::<f64>() / maps.len() as f64);
    }
    Ok(Scores { metrics: scores, spread, notes: notes(&broken) })
}

/// Returns the features `[n, D]` without the rows of missing images.
fn without(features: &tch::Tensor, missing: &HashSet<usize>) -> tch::Tensor {
    let rows = (0..features.size()[0]).filter(|&row| !missing.contains(&(row as usize)));
    features.index_select(0, &tch::Tensor::from_slice(&rows.collect::<Vec<_>>()))
}
