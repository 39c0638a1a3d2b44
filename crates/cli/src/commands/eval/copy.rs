//! `simdino eval copy`: ranks the originals of copies.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use eval::record::{DataUsed, Metrics};
use eval::retrieval::copydays::{Copydays, Whitening, group_of, score_block};
use eval::retrieval::{EmbedOptions, ImageFeatureKind, ImageFile, fingerprint, images_in};

use crate::console::note;
use crate::failure::Result;

use super::embedded::{Scores, baselines, embedded, is_pixels, notes, options, put, spread};
use super::networks::{Networks, Opened};
use super::outcome::{Measured, Outcome, measure_each};

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
    pub skip_untrained: bool,
}

impl CopyArgs {
    /// Returns the arguments for the published settings, without distractors and whitening.
    pub fn of(networks: Networks, copydays: PathBuf) -> Self {
        let (distractors, whiten, side, skip_untrained) = (None, None, 320, false);
        Self { networks, copydays, distractors, whiten, side, skip_untrained }
    }
}

/// Measures all networks.
pub fn run(args: &CopyArgs) -> Result<Outcome> {
    let images = CopyImages::find(args)?;
    measure_each(&args.networks, &mut |opened| measure_copies(args, &images, opened))
}

/// Measures a network.
///
/// # Errors
/// Returns an error if the images cannot be listed or read.
pub fn measure(args: &CopyArgs, opened: &Opened) -> Result<Measured> {
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
    let of = |options: &EmbedOptions<'_>| copies(copydays, [distractors, whiten], options);
    let scores = of(&options(opened, &opened.weights.backbone, kind))?;
    let baselines = baselines(opened, kind, args.skip_untrained, &of)?;
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
    put(&mut record, &main, &scores, &baselines);
    Measured::of(record)
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
    let whitening = match whiten.is_empty() || is_pixels(options) {
        true => None,
        false => {
            let (learned, missing) = of(whiten)?;
            let [count, width] = [learned.features.size()[0], learned.features.size()[1]];
            if count < width {
                note(&format!(
                    "warning: --whiten: {count} images are too few for features with {width} \
                     columns, so the whitening amplifies noise"
                ));
            }
            Some(Whitening::learn(&without(&learned.features, &missing))?)
        }
    };
    let white = |features: tch::Tensor| match &whitening {
        Some(whitening) => whitening.apply(&features),
        None => Ok(features),
    };
    let (database, missing) = of(&[copydays.originals.as_slice(), distractors].concat())?;
    let database = without(&database.features, &missing);
    let (spread, database) = (spread(&database, options)?, white(database)?);
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
